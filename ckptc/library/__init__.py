"""The mappings that ship and those of the user, as linked families: `mapping_files` finds and links them; `shipped` has
those that ship, read piece by piece from what `kept` keeps between runs as `packing` makes it data; `signs` is what tells
layouts apart at a glance; `families` names those to choose from. `listing` is `ckptc list`, `settings_page` and `families_page` are pages of the docs.
"""
