"""A tree in, text out. `show` writes one node in one line; `arrange` decides where lines break; `comments` keeps what
the tree does not hold; `format` puts them together.
"""
