"""A torch file in, windows out, and back: `zip_read` and `zip_write` are the container, `pickle_read` and
`pickle_write` what stands in it, `pickle_names` the names that it may refer to, `inert` those that are read past.
`torch_file` puts reading together, `lay_out` writing; `tensor_tree` is the values around the tensors.
"""
