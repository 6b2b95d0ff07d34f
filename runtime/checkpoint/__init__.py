"""A path in, a `Checkpoint` out: `newest_tag` chooses among a run's checkpoints, `find_files` asks the formats,
`checkpoint` reads headers, `scaled` pairs codes with their scales, `index` is what stands in square brackets, `side_files` are what stands beside the tensors.
"""
