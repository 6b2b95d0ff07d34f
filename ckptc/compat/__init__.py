"""A framework's own script and its arguments in, the native command that does the same out. `scripts` lists the
scripts, `work` is what their arguments are turned into; the other modules translate one framework's scripts each.
"""
