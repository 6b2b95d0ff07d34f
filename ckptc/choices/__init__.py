"""What the user asks for, checked and typed: `settings` of a layout, `arguments` of the API, pipeline `stages` and the
texts that say them (`stage_text`), values read by their declared type (`declared`, `typed_text`), KEY=VALUE (`pairs`),
and the options that a fault names (`option_names`).
"""
