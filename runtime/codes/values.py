"""Codes and scales as numbers, and numbers rounded to the bits of a dtype.

Sources: OCP 8-bit Floating Point Specification (E4M3, E5M2), OCP Microscaling Formats (E2M1, E8M0); compressed-tensors'
pack_quantized (integers are stored with half of their range added).
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]

SCALES = ("float32", "bfloat16", "float16", "float8_e8m0fnu")
DECODED = ("bfloat16", "float16", "float32")  # what elements can be rounded to
_SMALL = {"float8_e4m3fn": (4, 3), "float8_e5m2": (5, 2), "float4_e2m1fn": (2, 1)}  # bits of the exponent and of the fraction, below the sign
_WHOLE = {"int4": 16, "int8": 256}


@cache
def values_of(kind: str) -> NDArray[np.float32]:
    """What each code of a kind is: of 256, or of 16."""
    if kind in _WHOLE:
        return np.arange(_WHOLE[kind]).astype(np.float32) - np.float32(_WHOLE[kind] // 2)
    if kind == "float8_e8m0fnu":
        powers: NDArray[np.float32] = np.ldexp(1.0, np.minimum(np.arange(256), 254) - 127).astype(np.float32)
        powers[255] = np.nan
        return powers
    high, low = _SMALL[kind]
    codes = np.arange(2 << high + low)
    exponent, fraction = codes >> low & (1 << high) - 1, codes & (1 << low) - 1
    bias = (1 << (high - 1)) - 1
    size = np.where(exponent > 0, np.ldexp(1 + fraction / (1 << low), exponent - bias), np.ldexp(fraction / (1 << low), 1 - bias))
    if kind == "float8_e4m3fn":
        size[codes & 0x7F == 0x7F] = np.nan
    elif kind == "float8_e5m2":
        size = np.where(exponent == 31, np.where(fraction == 0, np.inf, np.nan), size)
    return np.copysign(size, np.where(codes >> high + low, -1.0, 1.0)).astype(np.float32)


@cache
def pairs_of(kind: str) -> NDArray[np.uint64]:
    """Of each byte of two four-bit codes, the lower first, both numbers side by side, as the bits of two float32."""
    both, values = np.arange(256), values_of(kind)
    return np.ascontiguousarray(np.stack((values[both & 15], values[both >> 4]), axis=1)).view(np.uint64)[:, 0]


def halves(raw: Array) -> Array:
    """The four-bit codes of bytes, the lower half of each first; the last axis is twice as long."""
    out = np.empty((*raw.shape[:-1], 2 * raw.shape[-1]), np.uint8)
    np.bitwise_and(raw, 15, out=out[..., 0::2])
    np.right_shift(raw, 4, out=out[..., 1::2])
    return out


def floats(raw: Any, dtype: str) -> Array:
    """The bytes of scales as numbers, in float32. Those of uint8 are exponents, 2 ** (byte - 127): where there is 2 ** 128,
    which is no float32 though half of it is, in float64."""
    if dtype == "uint8":
        powers = np.frombuffer(raw, np.uint8)
        wide = powers.size and int(powers.max()) == 255
        return np.ldexp(1.0, powers.astype(np.int32) - 127) if wide else values_of("float8_e8m0fnu")[powers]
    if dtype in ("float8_e8m0fnu", "float8_e4m3fn"):
        return values_of(dtype)[np.frombuffer(raw, np.uint8)]
    if dtype == "bfloat16":
        return (np.frombuffer(raw, np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return np.frombuffer(raw, np.dtype(dtype)).astype(np.float32)


def round_into(values: Array, dtype: str, out: Array) -> None:
    """The bits of the values in `dtype`, to nearest, ties to even. A NaN keeps its sign and becomes quiet."""
    values = values.astype(np.float32, copy=False)
    if dtype == "float32":
        out[:] = values.view(np.uint32)
        return
    if dtype == "float16":
        with np.errstate(over="ignore"):
            out[:] = values.astype(np.float16).view(np.uint16)
        return
    bits = values.view(np.uint32)
    near = bits >> np.uint32(16)
    near &= np.uint32(1)
    near += np.uint32(0x7FFF)
    near += bits
    near >>= np.uint32(16)
    strange = np.isnan(values)
    if strange.any():
        near[strange] = bits[strange] >> np.uint32(16) | np.uint32(0x40)
    out[:] = near


def products(codes: Array, kind: str, scales: Array, wanted: str) -> Array:
    """The bits in `wanted` of codes of `kind`, each times its scale."""
    with np.errstate(all="ignore"):
        values = values_of(kind)[codes] * scales
        out = np.empty(values.shape, np.uint32 if wanted == "float32" else np.uint16)
        round_into(values, wanted, out)
        return out
