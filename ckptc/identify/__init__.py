"""A checkpoint in, its family, layout and sizes out. Read `choose`, and `source`, which resolves what was chosen; `glance`
finds the layouts that names and config point at, `config_at_hand` the config; `recognise` holds a family against what the
files say they are, `identity` reads that from mappings, `unknown_family` says what to do where no mapping fits,
`wrapped_names` reads past wrappers, `known_config` has the configs that a model id stands for.
"""
