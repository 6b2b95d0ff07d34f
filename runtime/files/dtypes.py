"""Element types by their names: torch's storage classes, safetensors' codes, and which can be cast."""

from __future__ import annotations

# Types with a storage class of their own; all others travel as untyped bytes with a dtype beside them.
STORAGE_OF = {
    "float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage", "bfloat16": "BFloat16Storage",
    "int64": "LongStorage", "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage",
    "uint8": "ByteStorage", "bool": "BoolStorage", "complex64": "ComplexFloatStorage",
    "complex128": "ComplexDoubleStorage",
}  # fmt: skip
DTYPE_OF_STORAGE = {storage: dtype for dtype, storage in STORAGE_OF.items()}

CODE_OF = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ",
    "int64": "I64", "int32": "I32", "int16": "I16", "int8": "I8",
    "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL", "complex64": "C64",
}  # fmt: skip
DTYPE_OF_CODE = {code: dtype for dtype, code in CODE_OF.items()}

FLOATING = ("float64", "float32", "float16", "bfloat16")
_CAST = {name for name in STORAGE_OF if name != "bfloat16"} | {"bfloat16", "uint64", "uint32", "uint16"}


def castable(source: str, target: str) -> bool:
    """Whether tensors of `source` can be turned into `target`."""
    return source == target or {source, target} <= _CAST
