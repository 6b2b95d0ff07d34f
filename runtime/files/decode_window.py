"""Codes and scales in, the elements of a decoded tensor out. numpy alone.

An element is float32(code) * float32(scale), calculated in float32 and rounded once to the tensor's dtype, to nearest, ties
to even: as DeepSeek-V3's inference/kernel.py (weight_dequant) and transformers' finegrained_fp8 have it. Where a tensor has a
second scale, the first is multiplied by it, or divided by it, before, and rounded to float32: as Model Optimizer's
nvfp4_tensor.py and compressed-tensors' forward_helpers.py (_dequantize) have it. A NaN code or scale gives a NaN, which keeps
its sign where the scale is a number; what is too large for the dtype becomes an infinity.

Of a block with one scale a table of its 256 products is made, so that each element costs one look-up. Where blocks are parts
of rows, elements are multiplied; of four-bit codes both numbers of a byte are looked up at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..codes.values import DECODED, Array, floats, halves, pairs_of, products, round_into, values_of
from .window import CODE_BITS, ITEM_BYTES, Coded, Window, row_major

Fetch: TypeAlias = Callable[[Window, int, int], "bytes | bytearray"]  # elements of a window: the first, how many

_WIDE, _NARROW = 12, 32  # bytes of memory for each element: looked up in tables, or multiplied
_BITS = {2: np.uint16, 4: np.uint32}


def decoded_to(window: Window, dtype: str) -> Window:
    """The window; a decoded one is rounded to `dtype`, or left in float32 for what is wider."""
    if window.coded is None or dtype not in (*DECODED, "float64"):
        return window
    return replace(window, dtype=dtype if dtype in DECODED else "float32")


def steps(window: Window, begin: int, end: int, scratch: int) -> Iterator[tuple[int, int]]:
    """Elements [begin, end) in parts that are decoded in about `scratch` bytes each: of whole rows, where a row fits, and of whole
    groups that have one scale, where rows are made of them."""
    coded = window.coded
    assert coded is not None
    columns = coded.shape[-1] if coded.shape else 1
    if _in_parts(coded):
        in_groups = columns % coded.block[-1] == 0 == coded.first[-1] % coded.block[-1]
        wide, unit = in_groups, coded.block[-1] if in_groups else 1
    else:
        wide, unit = prod(coded.block[-2:]) >= 512 and columns * _NARROW <= scratch, 1
    most = max(1, scratch // (_WIDE if wide else _NARROW))
    while begin < end:
        stop = min(end, begin + most)
        if stop < end and stop - stop % columns > begin:
            stop -= stop % columns
        elif begin % unit:
            stop = min(stop, begin + unit - begin % unit)
        elif stop - stop % unit > begin:
            stop -= stop % unit
        yield begin, stop
        begin = stop


def decode_range(window: Window, begin: int, end: int, into: memoryview, fetch: Fetch, made: dict[tuple[int, ...], Array]) -> None:
    """Fills `into` with the elements [begin, end) of a decoded tensor, in the order in which they are stored. `made` has the last
    tables, which the next elements often need as well; a new dict does."""
    coded = window.coded
    assert coded is not None
    out = np.frombuffer(into, _BITS[ITEM_BYTES[window.dtype]])
    columns = coded.shape[-1] if coded.shape else 1
    for row, rows, column, width in _boxes(begin, end, columns):
        at = row * columns + column - begin
        _decode_box(window.dtype, coded, row, column, out[at : at + rows * width].reshape(rows, width), fetch, made)


def decode_turns(
    window: Window, begin: int, run: int, by: int, into: memoryview, fetch: Fetch, made: dict[tuple[int, ...], Array], scratch: int
) -> bool:
    """Fills `into` with runs of `run` elements, the first at `begin`, each `by` after the one before; False where these are not
    parts of rows that follow each other."""
    coded = window.coded
    assert coded is not None
    columns = coded.shape[-1] if coded.shape else 1
    row, column = divmod(begin, columns)
    if by != columns or column + run > columns:
        return False
    out = np.frombuffer(into, _BITS[ITEM_BYTES[window.dtype]]).reshape(-1, run)
    block, first, past = coded.block[-1], coded.first[-1], column + run
    edges = [column, past]
    if _in_parts(coded):  # whole groups that have one scale are decoded at once
        edges = sorted({column, past, min(past, column + -(column + first) % block), max(column, past - (past + first) % block)})
    step = max(1, scratch // (run * _WIDE + coded.codes.shape[-1] * ITEM_BYTES[coded.codes.dtype]))
    for low in range(0, len(out), step):
        part = out[low : low + step]
        for left, right in pairwise(edges):
            _decode_box(window.dtype, coded, row + low, left, part[:, left - column : right - column], fetch, made)
    return True


def _scale_places(coded: Coded, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    """The row-major offsets of the scales of elements at offsets in the order in which they are stored."""
    found = np.zeros_like(offsets)
    steps, of_scales = row_major(coded.shape), row_major(coded.scales.shape)
    for extent, step, block, first, stride in zip(coded.shape, steps, coded.block, coded.first, of_scales, strict=True):
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
    dtype: str, coded: Coded, row: int, column: int, out: Array, fetch: Fetch, made: dict[tuple[int, ...], Array]
) -> None:
    rows, width = out.shape
    columns = coded.shape[-1] if coded.shape else 1
    starts = np.arange(row, row + rows, dtype=np.int64) * columns
    of_row = _scale_places(coded, starts) // (coded.scales.shape or (1,))[-1]  # of each row, the row of scales
    block, first = (coded.block[-1], coded.first[-1]) if coded.shape else (1, 0)
    left, right = (column + first) // block, (column + width - 1 + first) // block + 1
    raw, skipped = _items(coded, row, rows, column, width, fetch)
    few = CODE_BITS[coded.kind] == 4
    if _in_parts(coded) and (right - left == 1 or (column + first) % block == 0 == width % block):
        scales, low = _scales(coded, of_row, left, right, fetch)
        found = np.take(pairs_of(coded.kind), raw).view(np.float32) if few else np.take(values_of(coded.kind), raw)
        values = found[:, skipped : skipped + width].reshape(rows, right - left, -1)
        with np.errstate(all="ignore"):
            own = scales[of_row - low][:, :, None]
            values = np.multiply(values, own, out=values) if own.dtype == np.float32 else values * own
            round_into(values.reshape(rows, width), dtype, out)
        return
    codes = (halves(raw) if few else raw)[:, skipped : skipped + width]
    widths = np.diff(np.clip(np.arange(left, right + 1) * block - first - column, 0, width))
    cuts = [0, *(np.flatnonzero(np.diff(of_row)) + 1).tolist(), rows]
    keys = [(int(of_row[cut]), left, right) for cut in cuts[:-1]]
    if few or any(key not in made for key in keys):
        scales, low = _scales(coded, of_row, left, right, fetch)
        if few or 256 * (right - left) * len(keys) > rows * width:
            out[:] = products(codes, coded.kind, np.repeat(scales, widths, axis=1)[of_row - low], dtype)
            return
    every, places = np.arange(256), np.repeat(np.arange(right - left, dtype=np.int64) * 256, widths)
    for (begin, end), key in zip(pairwise(cuts), keys, strict=True):
        table = made.get(key)
        if table is None:
            table = products(every, coded.kind, scales[key[0] - low][:, None], dtype).ravel()
            made.clear()
            made[key] = table
        np.take(table, codes[begin:end] + places, out=out[begin:end], mode="clip")


def _in_parts(coded: Coded) -> bool:
    """Whether a scale is for a part of a row, or for bytes of two codes, of which no table is made."""
    return CODE_BITS[coded.kind] == 4 or (bool(coded.block) and prod(coded.block[:-1]) == 1)


def _items(coded: Coded, row: int, rows: int, column: int, width: int, fetch: Fetch) -> tuple[Array, int]:
    """The bytes that hold the codes of a box, in rows, and how many codes of each row stand before the box."""
    per, across, item = coded.per, (coded.codes.shape or (1,))[-1], ITEM_BYTES[coded.codes.dtype]
    left = (column + coded.odd) // per
    right = (column + width - 1 + coded.odd) // per + 1
    skipped = column + coded.odd - left * per
    if rows == 1:
        return np.frombuffer(fetch(coded.codes, row * across + left, right - left), np.uint8).reshape(1, -1), skipped
    whole = np.frombuffer(fetch(coded.codes, row * across, rows * across), np.uint8).reshape(rows, -1)
    return whole[:, left * item : right * item], skipped


def _scales(coded: Coded, of_row: NDArray[np.int64], left: int, right: int, fetch: Fetch) -> tuple[Array, int]:
    """Of each row of scales from the first that is needed, those from `left` to `right` as numbers, the second one in them; and
    which row is the first."""
    across = (coded.scales.shape or (1,))[-1]
    low, high = int(of_row.min()), int(of_row.max()) + 1
    if high - low == 1:  # a row may be long: no more of it is read than is needed
        found = floats(fetch(coded.scales, low * across + left, right - left), coded.scales.dtype).reshape(1, -1)
    else:
        found = floats(fetch(coded.scales, low * across, (high - low) * across), coded.scales.dtype).reshape(-1, across)[:, left:right]
    if coded.second is None:
        return found, low
    second = floats(fetch(coded.second, 0, 1), coded.second.dtype)
    with np.errstate(all="ignore"):
        return (found / second if coded.divided else found * second), low
