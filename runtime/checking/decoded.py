"""A window of codes and scales, and offsets of elements, in; their bits out: what a conversion defines (see `files.decode_window`),
written down a second time, with shifts of words and one number at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..files.window import CODE_BITS, Coded, Window, row_major
from .numbers import Array, from_numbers, numbers

Offsets: TypeAlias = NDArray[np.int64]
Take: TypeAlias = Callable[[Window, int, Sequence[Offsets]], Array]  # bits of elements of a window at sums of offsets

_E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # OCP Microscaling Formats, 5.3.3; the highest bit is the sign


def decoded_bits(window: Window, base: int, offsets: Sequence[Offsets], whole: Offsets, take: Take) -> Array:
    """The elements at `whole`, which are all sums of `base` and `offsets`, as bits."""
    coded = window.coded
    assert coded is not None
    own = {axis: whole // step % extent for extent, step, axis in zip(window.shape, row_major(window.shape), coded.axes, strict=True)}
    index = [own.get(axis, np.zeros_like(whole)) for axis in range(len(coded.shape))]
    if coded.per == 1 and coded.shape == window.shape and coded.axes == tuple(range(len(coded.shape))):
        codes = take(coded.codes, base, offsets)
    else:
        codes = _shared(coded, index, take)
    places = np.zeros_like(whole)
    for i, first, block, stride in zip(index, coded.first, coded.block, row_major(coded.scales.shape), strict=True):
        places += (i + first) // block * stride
    near, which = np.unique(places, return_inverse=True)
    scales = take(coded.scales, 0, [near])
    with np.errstate(all="ignore"):
        return from_numbers(_product(coded, codes, scales, which.reshape(codes.shape), take), window.dtype)


def _shared(coded: Coded, index: Sequence[Offsets], take: Take) -> Array:
    """Codes of which a byte or word holds several."""
    bits, per = CODE_BITS[coded.kind], coded.per
    last = index[-1] + coded.first[-1] % per
    places = np.zeros_like(last)
    for i, stride in zip((*index[:-1], last // per), row_major(coded.codes.shape), strict=True):
        places += i * stride
    near, which = np.unique(places, return_inverse=True)
    words = take(coded.codes, 0, [near]).astype(np.uint32)[which].reshape(last.shape)
    found: Array = words >> (last % per * bits).astype(np.uint32) & np.uint32((1 << bits) - 1)
    return found


def _product(coded: Coded, codes: Array, scales: Array, which: Any, take: Take) -> Array:
    value = _numbers(codes, coded.kind)
    if coded.scales.dtype == "uint8":
        exponents = scales.astype(np.int32) - 127
        exact: Array = np.ldexp(value.astype(np.float64), exponents[which])
        return exact.astype(np.float32)
    scale = numbers(scales, coded.scales.dtype).astype(np.float32)
    if coded.second is not None:
        second = numbers(take(coded.second, 0, [np.zeros(1, np.int64)]), coded.second.dtype).astype(np.float32)
        scale = np.divide(scale, second) if coded.divided else np.multiply(scale, second)
    product: Array = value * scale[which]
    return product


def _numbers(codes: Array, kind: str) -> Array:
    if kind == "float4_e2m1fn":
        size = np.array(_E2M1, np.float32)[codes & 7]
        signed: Array = np.where(codes & 8, -size, size)
        return signed
    if kind in ("int4", "int8"):
        return (codes.astype(np.int32) - (1 << CODE_BITS[kind] - 1)).astype(np.float32)
    values: Array = numbers(codes, kind).astype(np.float32)
    return values
