"""Expressions in, values out. `walk_expr` names what an expression reads, `scope` evaluates it, `solve` turns it
around to write a config. `pick` settles which indices a guard selects, `stages` deals layers to pipeline stages,
`lets` inlines named indices.
"""
