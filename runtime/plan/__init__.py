"""What a compiled conversion is: `plan` is the data and its docstring the law; `plan_file` saves it, `check_plan`
holds a plan from a file to its bounds, `expand` spells the tensors of a family.
"""
