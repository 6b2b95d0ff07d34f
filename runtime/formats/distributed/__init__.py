"""Distributed checkpoints: `find` says of which backend one is, `torch_dist` and `zarr` are the formats, each with a
module that reads and one that writes. `stacked` joins parts of bracketed names to stored tensors, `check_tiles`
holds that parts cover a tensor, `lay_out` is what both write alike.
"""
