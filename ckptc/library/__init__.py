"""The mappings that ship and those of the user, as linked families: `mapping_files` finds and links them, `tree_cache`
keeps parsed ones, `listing` is `ckptc list`, `settings_page` the pages of settings in
the docs, `families_page` that of families and layouts.
"""
