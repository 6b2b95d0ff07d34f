"""A resolved conversion in, a plan with what goes beside its tensors out: `planned` is the plan; `side_files` writes configs and takes tokenizers along,
`vocabulary` and `tokenizer_size` find how many rows are real, `ask` settles parameters that files do not tell,
`given_tokenizer` looks at the tokenizer that is named, `single_file` puts all tensors in one file.
"""
