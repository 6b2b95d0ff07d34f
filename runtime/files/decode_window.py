"""Codes and scales in, the elements of a decoded tensor out. numpy alone.

An element is float32(code) * float32(scale), calculated in float32 and rounded once to the tensor's dtype, to nearest, ties
to even: as DeepSeek-V3's inference/kernel.py (weight_dequant) and transformers' finegrained_fp8 have it. A NaN code or scale
gives a NaN, which keeps its sign where the scale is a number; what is too large for the dtype becomes an infinity.

Of a block with one scale a table of its 256 products is made, so that each element costs one look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .window import ITEM_BYTES, Coded, Window, row_major

Array: TypeAlias = NDArray[Any]
Fetch: TypeAlias = Callable[[Window, int, int], "bytes | bytearray"]  # elements of a window: the first, how many

_WIDE, _NARROW = 12, 32  # bytes of memory for each element: looked up in tables, or multiplied
CODES = ("float8_e4m3fn", "float8_e5m2")
SCALES = ("float32", "bfloat16", "float16", "float8_e8m0fnu")
DECODED = ("bfloat16", "float16", "float32")  # what elements can be rounded to
_BITS = {2: np.uint16, 4: np.uint32}
_SMALL = {"float8_e4m3fn": (4, 3), "float8_e5m2": (5, 2)}  # bits of the exponent and of the fraction, below the sign


@cache
def values_of(dtype: str) -> NDArray[np.float32]:
    """What each of the 256 codes of an eight-bit type is. Source: OCP 8-bit Floating Point Specification, OCP Microscaling
    Formats (E8M0)."""
    codes = np.arange(256)
    if dtype == "float8_e8m0fnu":
        powers: NDArray[np.float32] = np.ldexp(1.0, np.minimum(codes, 254) - 127).astype(np.float32)
        powers[255] = np.nan
        return powers
    high, low = _SMALL[dtype]
    exponent, fraction = codes >> low & (1 << high) - 1, codes & (1 << low) - 1
    bias = (1 << (high - 1)) - 1
    size = np.where(exponent > 0, np.ldexp(1 + fraction / (1 << low), exponent - bias), np.ldexp(fraction / (1 << low), 1 - bias))
    if dtype == "float8_e4m3fn":
        size[codes & 0x7F == 0x7F] = np.nan
    else:
        size = np.where(exponent == 31, np.where(fraction == 0, np.inf, np.nan), size)
    return np.copysign(size, np.where(codes >> 7, -1.0, 1.0)).astype(np.float32)


def floats(raw: Any, dtype: str) -> NDArray[np.float32]:
    """The bytes of scales as numbers."""
    if dtype == "float8_e8m0fnu":
        return values_of(dtype)[np.frombuffer(raw, np.uint8)]
    if dtype == "bfloat16":
        return (np.frombuffer(raw, np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)
    return np.frombuffer(raw, np.dtype(dtype)).astype(np.float32)


def rounded(values: NDArray[np.float32], dtype: str) -> Array:
    """The bits of the values in `dtype`, to nearest, ties to even. A NaN keeps its sign and becomes quiet."""
    if dtype == "float32":
        return values.view(np.uint32)
    if dtype == "float16":
        with np.errstate(over="ignore"):
            return values.astype(np.float16).view(np.uint16)
    bits = values.view(np.uint32)
    near = ((bits + (np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1)))) >> np.uint32(16)).astype(np.uint16)
    strange = np.isnan(values)
    if strange.any():
        near[strange] = (bits[strange] >> np.uint32(16) | np.uint32(0x40)).astype(np.uint16)
    return near


def products(codes: Array, dtype: str, scales: Array, wanted: str) -> Array:
    """The bits in `wanted` of codes of `dtype`, each times its scale."""
    with np.errstate(all="ignore"):
        return rounded(values_of(dtype)[codes] * scales, wanted)


def decoded_to(window: Window, dtype: str) -> Window:
    """The window; a decoded one is rounded to `dtype`, or left in float32 for what is wider."""
    if window.coded is None or dtype not in (*DECODED, "float64"):
        return window
    return replace(window, dtype=dtype if dtype in DECODED else "float32")


def steps(window: Window, begin: int, end: int, scratch: int) -> Iterator[tuple[int, int]]:
    """Elements [begin, end) in parts that are decoded in about `scratch` bytes each: of whole rows, where a row fits."""
    assert window.coded is not None
    columns = window.shape[-1] if window.shape else 1
    wide = prod(window.coded.block[-2:]) >= 512 and columns * _NARROW <= scratch
    most = max(1, scratch // (_WIDE if wide else _NARROW))
    while begin < end:
        stop = min(end, begin + most)
        if stop < end and stop - stop % columns > begin:
            stop -= stop % columns
        yield begin, stop
        begin = stop


def decode_range(window: Window, begin: int, end: int, into: memoryview, fetch: Fetch, made: dict[tuple[int, ...], Array]) -> None:
    """Fills `into` with the elements [begin, end) of a decoded tensor, in row-major order. `made` has the last tables, which
    the next elements often need as well; a new dict does."""
    coded = window.coded
    assert coded is not None
    out = np.frombuffer(into, _BITS[ITEM_BYTES[window.dtype]])
    codes = np.frombuffer(fetch(coded.codes, begin, end - begin), np.uint8)
    columns = window.shape[-1] if window.shape else 1
    for row, rows, column, width in _boxes(begin, end, columns):
        at = row * columns + column - begin
        part = slice(at, at + rows * width)
        _decode_box(window, coded, row, column, codes[part].reshape(rows, width), out[part].reshape(rows, width), fetch, made)


def scale_places(window: Window, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row-major offsets of the scales of elements at row-major offsets of the tensor."""
    coded = window.coded
    assert coded is not None
    found = np.zeros_like(offsets)
    steps, of_scales = row_major(window.shape), row_major(coded.scales.shape)
    for extent, step, block, first, stride in zip(window.shape, steps, coded.block, coded.first, of_scales, strict=True):
        found += (offsets // step % extent + first) // block * stride
    return found


def _boxes(begin: int, end: int, columns: int) -> Iterator[tuple[int, int, int, int]]:
    """Elements [begin, end) as boxes of whole rows, and parts of a row before and after: row, rows, column, width."""
    row, column = divmod(begin, columns)
    if column:
        width = min(columns - column, end - begin)
        yield row, 1, column, width
        begin, row = begin + width, row + 1
    rows = (end - begin) // columns
    if rows:
        yield row, rows, 0, columns
        begin, row = begin + rows * columns, row + rows
    if begin < end:
        yield row, 1, 0, end - begin


def _decode_box(
    window: Window, coded: Coded, row: int, column: int, codes: Array, out: Array, fetch: Fetch, made: dict[tuple[int, ...], Array]
) -> None:
    rows, width = codes.shape
    columns = window.shape[-1] if window.shape else 1
    across = (coded.scales.shape or (1,))[-1]
    starts = np.arange(row, row + rows, dtype=np.int64) * columns
    of_row = scale_places(window, starts) // across  # of each row, the row of scales
    block, first = (coded.block[-1], coded.first[-1]) if window.shape else (1, 0)
    left, right = (column + first) // block, (column + width - 1 + first) // block + 1
    widths = np.diff(np.clip(np.arange(left, right + 1) * block - first - column, 0, width))
    cuts = [0, *(np.flatnonzero(np.diff(of_row)) + 1).tolist(), rows]
    keys = [(int(of_row[cut]), left, right) for cut in cuts[:-1]]
    dtype = coded.codes.dtype
    known = all(key in made for key in keys)
    if not known:
        low, high = int(of_row.min()), int(of_row.max()) + 1
        if high - low == 1:  # a row may be long: no more of it is read than is needed
            scales = floats(fetch(coded.scales, low * across + left, right - left), coded.scales.dtype).reshape(1, -1)
        else:
            scales = floats(fetch(coded.scales, low * across, (high - low) * across), coded.scales.dtype).reshape(-1, across)[:, left:right]
        if 256 * (right - left) * len(keys) > rows * width:
            out[:] = products(codes, dtype, np.repeat(scales, widths, axis=1)[of_row - low], window.dtype)
            return
    every, places = np.arange(256), np.repeat(np.arange(right - left, dtype=np.int64) * 256, widths)
    for (begin, end), key in zip(pairwise(cuts), keys, strict=True):
        table = made.get(key)
        if table is None:
            table = products(every, dtype, scales[key[0] - low][:, None], window.dtype).ravel()
            made.clear()
            made[key] = table
        np.take(table, codes[begin:end] + places, out=out[begin:end], mode="clip")
