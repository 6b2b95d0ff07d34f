"""Bits of elements in; the numbers they are, what they are in another dtype, and how far two are apart, out. numpy alone.

A cast rounds to nearest, ties to even. `x * scale + shift` is calculated in float32, or in float64 where either dtype is
float64, in two roundings: what a conversion defines (see `runtime.kernels`), written down a second time.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..files.dtypes import castable
from ..files.window import ITEM_BYTES

Array: TypeAlias = NDArray[Any]

BITS: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64, 16: np.dtype("V16")}
# Exponent bits, mantissa bits, bias, and how the largest exponent is used: as of IEEE, all finite but one NaN, or one zero alone.
_SMALL = {"float8_e4m3fn": (4, 3, 7, "fn"), "float8_e5m2": (5, 2, 15, "ieee"), "float8_e4m3fnuz": (4, 3, 8, "uz"), "float8_e5m2fnuz": (5, 2, 16, "uz")}


def bits_of(dtype: str) -> Any:
    """The numpy type in which elements of `dtype` are held: unsigned integers as wide as they are."""
    return BITS[ITEM_BYTES[dtype]]


def is_floating(dtype: str) -> bool:
    return dtype.startswith(("float", "bfloat"))


def numbers(bits: Array, dtype: str) -> Array:
    """The elements as numpy numbers of their own width, or as float32 where numpy has no such type."""
    if dtype == "bfloat16":
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype in _SMALL or dtype == "float8_e8m0fnu":
        return _table(dtype)[bits]
    return np.ascontiguousarray(bits).view(np.dtype(dtype))


@cache
def _table(dtype: str) -> Array:
    """What each of the 256 values of an eight-bit type is."""
    codes = np.arange(256)
    if dtype == "float8_e8m0fnu":
        scales = np.ldexp(np.ones(256), codes - 127)
        scales[255] = np.nan
        return scales
    exponent_bits, mantissa_bits, bias, kind = _SMALL[dtype]
    sign = np.where(codes >> 7, -1.0, 1.0)
    exponent, mantissa = (codes >> mantissa_bits) & ((1 << exponent_bits) - 1), codes & ((1 << mantissa_bits) - 1)
    part = mantissa / (1 << mantissa_bits)
    out = sign * np.where(exponent > 0, np.ldexp(1 + part, exponent - bias), np.ldexp(part, 1 - bias))
    top = exponent == (1 << exponent_bits) - 1
    if kind == "ieee":
        out = np.where(top, np.where(mantissa == 0, sign * np.inf, np.copysign(np.nan, sign)), out)
    elif kind == "fn":
        out = np.where((codes & 0x7F) == 0x7F, np.copysign(np.nan, sign), out)
    else:
        out = np.where(codes == 0x80, np.nan, out)
    return out.astype(np.float32)


def can_cast(source: str, target: str) -> bool:
    """Whether a conversion defines what elements of `source` are in `target`."""
    return castable(source, target)


def cast(bits: Array, source: str, target: str, scale: float = 1.0, shift: float = 0.0) -> Array:
    """The bits in `target` of elements of `source`, times `scale`, plus `shift`."""
    plain = scale == 1.0 and shift == 0.0
    if source == target and plain:
        return bits
    with np.errstate(all="ignore"):
        value = numbers(bits, source)
        if not plain:
            wide: Any = np.float64 if "float64" in (source, target) else np.float32
            value = value.astype(wide) * wide(scale)
            value = value + wide(shift)
        return from_numbers(value, target)


def from_numbers(value: Array, target: str) -> Array:
    """Numbers rounded to `target`, as its bits."""
    with np.errstate(all="ignore"):
        if target in ("float16", "bfloat16") and value.dtype == np.float64:
            value = value.astype(np.float32)  # a double is first made a float, as torch does
        if target == "bfloat16":
            raw = np.ascontiguousarray(value, dtype=np.float32).view(np.uint32)
            even = (raw >> np.uint32(16)) & np.uint32(1)
            rounded = ((raw + np.uint32(0x7FFF) + even) >> np.uint32(16)).astype(np.uint16)
            quiet = ((raw >> np.uint32(16)) | np.uint32(0x40)).astype(np.uint16)
            return np.where(np.isnan(raw.view(np.float32)), quiet, rounded)
        return np.ascontiguousarray(value.astype(np.dtype(target))).view(bits_of(target))


def truncated(bits: Array, source: str, target: str) -> Array | None:
    """What cutting off mantissa bits makes of float32, instead of rounding. None for other pairs of dtypes."""
    if source == "float32" and target == "bfloat16":
        return (bits >> np.uint32(16)).astype(np.uint16)
    if source in ("float32", "bfloat16") and target == "float16":
        with np.errstate(all="ignore"):
            wide = numbers(bits, source)
            near = wide.astype(np.float16)
            away = np.abs(near.astype(np.float32)) > np.abs(wide)
            return np.ascontiguousarray(np.where(away, np.nextafter(near, np.float16(0)), near)).view(np.uint16)
    return None


def unequal(expected: Array, found: Array, dtype: str, exact: bool) -> Array:
    """Where bits differ. Unless `exact`, one NaN is as good as another: a cast keeps no payloads."""
    differ: Array = expected != found
    if not exact and is_floating(dtype) and differ.any():
        differ &= ~(np.isnan(numbers(expected, dtype)) & np.isnan(numbers(found, dtype)))
    return differ


def wide_numbers(bits: Array, dtype: str) -> Array:
    """The elements as float64, as complex128 where they are complex."""
    value = numbers(bits, dtype)
    return value.astype(np.complex128 if value.dtype.kind == "c" else np.float64)


def apart(left: Array, right: Array, dtype: str) -> tuple[float, int | None]:
    """The largest absolute difference of two arrays of bits, and how many values of `dtype` lie between those farthest
    apart (units in the last place); None where that means nothing. NaN counts as no distance."""
    if not left.size:
        return 0.0, 0
    with np.errstate(all="ignore"):
        gaps = np.abs(wide_numbers(left, dtype) - wide_numbers(right, dtype))
    known = gaps[~np.isnan(gaps)]
    most = float(known.max()) if known.size else 0.0
    if not is_floating(dtype) or dtype.endswith("fnu"):
        return most, None
    both = ~(np.isnan(numbers(left, dtype)) | np.isnan(numbers(right, dtype)))
    if not both.any():
        return most, None
    top = np.uint64(1 << (8 * ITEM_BYTES[dtype] - 1))
    one, two = left[both].astype(np.uint64), right[both].astype(np.uint64)
    size_one, size_two = one & (top - np.uint64(1)), two & (top - np.uint64(1))
    same_sign = (one & top) == (two & top)
    steps = np.where(same_sign, np.maximum(size_one, size_two) - np.minimum(size_one, size_two), size_one + size_two)
    return most, int(steps.max())


def shown(bits: Array, dtype: str) -> int | float | str:
    """One element for a report: a number, or a text where it is none that JSON has."""
    value = numbers(bits.reshape(1), dtype)[0]
    if value.dtype.kind in "ui":
        return int(value)
    if value.dtype.kind == "b":
        return str(bool(value))
    if value.dtype.kind == "c" or not np.isfinite(value):
        return f"nan ({int(bits):#x})" if value.dtype.kind == "f" and np.isnan(value) else str(value)
    return float(f"{float(value):.9g}") if value.dtype.itemsize <= 4 else float(value)
