"""Text in, a `tree.Mapping` out. Read `grammar.lark` first, then `parse` (lark and its faults), `build` (the tree of
each statement), `build_expressions`, `pattern` (names with holes) and `modifiers`. Only this folder knows lark.
"""
