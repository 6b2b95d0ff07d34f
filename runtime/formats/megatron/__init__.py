"""Megatron-LM's rank files: `rank_file` is the dict around their tensors, `megatron` the format that writes them. The
format `pt` reads them.
"""
