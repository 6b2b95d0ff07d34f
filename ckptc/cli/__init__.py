"""The subcommands: options in, calls of the API out. `options` has those that several share. `ckptc.main` puts the
subcommands together.
"""
