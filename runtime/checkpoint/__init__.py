"""A path in, a `Checkpoint` out: `newest_tag` chooses among a run's checkpoints, `find_files` asks the formats,
`checkpoint` reads headers, `side_files` are what stands beside the tensors.
"""
