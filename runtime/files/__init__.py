"""What all formats share. Read `window` (where a tensor's bytes are), `file_layout` (what surrounds them in a file)
and `format` (what a format is) first. `places` are folders and archives; `shards` spreads tensors over files;
`indexed` takes stacked tensors apart; `gather` and `read_window` read bytes from tiles, `decode_window` makes elements
of codes and scales; `stamps` tell whether a file is still the same, `file_system` what the one below can do.
"""
