"""A family, a config and parameters in, a resolved layout (`resolve.Side`) out: axis sizes (`sizes`), refined axes and
the digits of ranks (`refine`, `rank_digits`), live rules (`resolve`), the layout of optimizer state
(`optimizer_states`), and the config that a target gets (`write_config`), read back as its framework would (`said`).
"""
