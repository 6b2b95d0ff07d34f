"""Copies of boxes between two arrays: `boxes` joins and cuts loops, `kernels` copies, casts and fills, `jit` has the
loops that Numba compiles.
"""
