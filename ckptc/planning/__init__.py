"""A resolved conversion in, what goes beside its tensors out: `side_files` writes configs and takes tokenizers along,
`vocabulary` and `tokenizer_size` find how many rows are real, `ask` settles parameters that files do not tell.
"""
