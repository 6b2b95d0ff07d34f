"""A family in, diagnostics out, without a checkpoint: `check` walks the statements, `check_names` looks up every name,
`check_config` and `check_files` know the rules of configs, files and formats.
"""
