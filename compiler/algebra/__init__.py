"""Resolved layouts in, steps of a plan out. Read `digits` (how two numberings of one axis meet) and `pieces` (boxes of
elements), then `index`, `spell` and `lower` (expressions to pieces), `clash` and `prove` (what must hold of a
layout), `compose` (pieces of two layouts to moves), and `optimise` (moves to steps).
"""
