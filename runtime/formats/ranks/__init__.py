"""Rank files: `find` knows where they are, `pt` reads and writes them, `xser` those whose tensors have files of their
own. `read_tree` keeps all that stands around the tensors, for optimizer state.
"""
