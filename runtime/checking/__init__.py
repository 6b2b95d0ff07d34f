"""Two checkpoints in, what differs between them out, by a slow path of its own: windows are read by positional reads and
plain numpy index expressions, with nothing of the engine, its kernels or a plan's steps. Read `overlaps` first (where the
elements of one tensor of the model lie on both sides), then `locate` (which entries these are), `numbers` and `elements`
(bits, casts, reads), `compare` (the counts, and what differs), and `relations`, `orders`, `contents`, `suspects`
(what would explain it).
"""
