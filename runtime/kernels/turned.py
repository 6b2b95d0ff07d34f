"""Copies whose runs lie along different loops, and casts between bfloat16 and float32, in blocks that stay in a core's cache."""

from __future__ import annotations

from itertools import product

import numpy as np

from .arrays import Array, blocks, view
from .boxes import LoopT, elements

_LINE = 32  # bytes that are written in one run: half of a cache line, and enough for the lines that are read to be read once
_MANY = 1 << 14  # elements for which a turn of Python's own is nothing
_CAST = 1 << 15  # elements that are rounded at once


def transpose(source: Array, target: Array, source_at: int, target_at: int, loops: tuple[LoopT, ...]) -> None:
    """Copies a box a few target elements of every run at a time, so that each line of the source serves them all."""
    dense = min(range(len(loops)), key=lambda k: loops[k][2])
    near = min(range(len(loops)), key=lambda k: (loops[k][1] == 0, loops[k][1]))
    others = [loop for k, loop in enumerate(loops) if k not in (near, dense)]
    inner = (loops[near], loops[dense])
    if elements(inner) < _MANY:
        _turn(source, target, source_at, target_at, (*others, *inner))
        return
    for indices in product(*(range(extent) for extent, _, _ in others)):
        at = sum(i * loop[1] for i, loop in zip(indices, others, strict=True))
        to = sum(i * loop[2] for i, loop in zip(indices, others, strict=True))
        _turn(source, target, source_at + at, target_at + to, inner)


def _turn(source: Array, target: Array, source_at: int, target_at: int, loops: tuple[LoopT, ...]) -> None:
    """The last loop is the one that is dense in the target, the one before it that in the source."""
    one, two = view(source, source_at, loops, 1), view(target, target_at, loops, 2)
    block = max(1, _LINE // source.itemsize)
    if elements(loops[:-1]) < 32:
        block = loops[-1][0]
    for c in range(0, loops[-1][0], block):
        np.copyto(two[..., c : c + block], one[..., c : c + block])


def widen(source: Array, target: Array, source_at: int, target_at: int, loops: tuple[LoopT, ...]) -> None:
    """bfloat16 to float32: exact."""
    np.left_shift(view(source, source_at, loops, 1), np.uint32(16), out=view(target, target_at, loops, 2), dtype=np.uint32)


def round_off(source: Array, target: Array, source_at: int, target_at: int, loops: tuple[LoopT, ...]) -> None:
    """float32 to bfloat16: to nearest, ties to even; NaN keeps its sign and top bits and becomes quiet."""
    with np.errstate(all="ignore"):
        for s, t, part in blocks(source_at, target_at, loops, _CAST):
            _round(np.ascontiguousarray(view(source, s, part, 1)), view(target, t, part, 2))


def _round(bits: Array, target: Array) -> None:
    work = bits >> np.uint32(16)
    work &= np.uint32(1)
    work += np.uint32(0x7FFF)
    work += bits
    work >>= np.uint32(16)
    total = np.add.reduce(bits.view(np.float32), axis=None)
    if total - total != 0:  # there may be a NaN, or the sum is no number of its own accord
        nan = (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000)
        np.copyto(work, bits >> np.uint32(16) | np.uint32(0x40), where=nan)
    np.copyto(target, work, casting="unsafe")
