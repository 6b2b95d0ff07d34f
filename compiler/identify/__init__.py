"""The names and shapes of a checkpoint in, the layouts that it can be of out. `match` turns names into indices and
back, `detect` holds a checkpoint against layouts, `infer` finds sizes that no config says, `by_default`
says which tensors a family has where nothing is said.
"""
