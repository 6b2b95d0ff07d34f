"""Config files of every framework in, plain values out (`config_file`); changes of a YAML text that leave the rest of
it as it is (`yaml_text`).
"""
