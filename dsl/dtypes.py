"""The short dtype names that a mapping writes and the torch names that the tree holds."""

from __future__ import annotations

TORCH_NAMES = {
    "f64": "float64",
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "f8e4m3": "float8_e4m3fn",
    "f8e5m2": "float8_e5m2",
    "i64": "int64",
    "i32": "int32",
    "i16": "int16",
    "i8": "int8",
    "u8": "uint8",
    "bool": "bool",
}

SHORT_NAMES = {torch: short for short, torch in TORCH_NAMES.items()}
