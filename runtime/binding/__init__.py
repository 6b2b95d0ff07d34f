"""A plan and an opened checkpoint in, a `Bound` out: every window, dtype, file and byte is known and nothing is read.
Read `bind`; `find_tensors` matches names, `place_targets` asks the format for files, `made_tensors` calculates what
no file holds, `carry` takes side files along, `archive` turns a folder into one file.
"""
