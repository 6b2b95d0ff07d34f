"""Checksums of a conversion, written beside its result and checked later without the source. `manifest` is the data and its file,
`digests` reads files back, `write` makes one, and `check` holds a result against one.
"""
