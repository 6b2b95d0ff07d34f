"""Parsed files in, families out: `extends` is followed, prefixes and guards are written into each rule, `config`
blocks are merged. Read `link`, then `merge_config`; `config` finds a layout's block.
"""
