"""A path in, a `Checkpoint` out: `newest_tag` chooses among a run's checkpoints, `find_files` asks the formats,
`checkpoint` reads headers, `scaled` and `packed` pair codes with their scales as `quantization` of the config says
(`schemes`: how they are paired), `decoded` says what they became, `index` is what stands in square brackets, and
`side_files` are what stands beside the tensors.
"""
