"""Copies of boxes between two arrays: `boxes` joins and cuts loops, `kernels` copies, casts and fills, `turned` has the
copies whose runs lie along different loops and the casts of bfloat16, `arrays` what both make of a box; `jit` has the same
as `turned` in loops that Numba compiles, for long runs.
"""
