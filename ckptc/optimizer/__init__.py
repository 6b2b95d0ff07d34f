"""Optimizer state of zero1 checkpoints: `zero1_files` reads the files, `parameter_order` numbers parameters as the
framework does, `state` makes the plan of the state.
"""
