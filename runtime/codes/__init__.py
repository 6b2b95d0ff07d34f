"""Bytes of codes and of scales in, the numbers they are, and the bits that these are rounded to, out: `values`, numpy alone.
It knows neither files nor windows; `runtime.files.decode_window` asks it while a tensor is read.
"""
