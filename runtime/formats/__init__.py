"""A path in, names and windows out; and tensors in, laid out files out. Each format has its folder; `registry` lists
them and is the only place that knows them all. `torch` is the torch file itself (zip and pickle), which `ranks`,
`nemo`, `megatron` and `distributed` are made of; `runs` reads what a training run was started with.
"""
