"""A bound plan in, files on disk out. Read `engine` (the run), `schedule` (which pieces of work, within the memory
budget), `chunk` and `fill` (one piece of work), `target_files` (writes in order, checksums), `copy_range` (bytes
that never enter Python), `compare` and `made_means` (what comes before the first write), `destination` (whole or
not at all).
"""
