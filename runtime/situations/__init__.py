"""A file, a folder's names or a checkpoint's tensors in; what people have that is no checkpoint of plain weights, by its name,
out. `signs` is the data, `situations` holds things against it.
"""
