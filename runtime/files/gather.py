"""A tensor that lies in several places, read as if it were one run of bytes: its tiles' rows are put where they belong.
One that is stored as codes and scales is decoded on the way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .decode_window import Fetch, decode_range, decode_turns, steps
from .window import ITEM_BYTES, Tile, Window, row_major

SCRATCH_BYTES = 1 << 20  # how much is gathered at once, and how much of a tile is read at once where its rows are short
_LONG_BYTES = 64 << 10  # from here on a row is read to its place

Rows: TypeAlias = NDArray[np.int64]
Read: TypeAlias = Callable[[str, memoryview, int], None]  # a path, where to, from which byte


@dataclass(frozen=True)
class Gather:
    """Stands where the path of a file would: `read` fills a buffer from an offset in the contiguous tensor's bytes, or in those
    of a decoded one in the order in which it is stored.

    It works in `scratch` bytes, or a few more for tensors of wide elements.
    """

    window: Window
    scratch: int = SCRATCH_BYTES

    def read(self, read: Read, into: memoryview, at: int) -> None:
        """Fills `into` with the tensor's bytes from `at`; both are whole elements."""
        item = ITEM_BYTES[self.window.dtype]
        if self.window.coded is not None:
            self._decode(read, into, at // item, item)
            return
        step = max(1, self.scratch // item)
        last = (at + len(into)) // item
        for begin in range(at // item, last, step):
            end = min(last, begin + step)
            part = into[begin * item - at : end * item - at]
            for tile in self.window.tiles:
                _copy_rows(tile, self.window.shape, item, begin, end, part, read, self.scratch)

    def read_turns(self, read: Read, into: memoryview, at: int, run: int, by: int) -> None:
        """Fills `into` with runs of `run` bytes, the first from `at`, each `by` bytes after the one before."""
        item = ITEM_BYTES[self.window.dtype]
        if self.window.coded is None or not decode_turns(self.window, at // item, run // item, by // item, into, self._fetch(read), {}, self.scratch):
            for turn in range(len(into) // run):
                self.read(read, into[turn * run : (turn + 1) * run], at + turn * by)

    def _fetch(self, read: Read) -> Fetch:
        return lambda window, at, count: elements_of(window, at, count, read, self.scratch)

    def _decode(self, read: Read, into: memoryview, first: int, item: int) -> None:
        fetch = self._fetch(read)
        made: dict[tuple[int, ...], NDArray[Any]] = {}
        for begin, end in steps(self.window, first, first + len(into) // item, self.scratch):
            decode_range(self.window, begin, end, into[(begin - first) * item : (end - first) * item], fetch, made)


def place_of(window: Window, scratch: int = SCRATCH_BYTES) -> tuple[str | Gather, int]:
    """What a window's first element is read from: a file and a byte of it, or its tiles."""
    return (Gather(window, scratch), 0) if window.composed else (window.path, window.at)


def place_of_range(window: Window, first: int, count: int, scratch: int = SCRATCH_BYTES) -> tuple[str | Gather, int]:
    """The same for `count` elements from `first` of a tiled window: of a file, where they lie in it in one run."""
    item = ITEM_BYTES[window.dtype]
    for tile in window.tiles:
        starts, run, places = _rows(tile, window.shape, first, first + count)
        for k in np.flatnonzero((starts <= first) & (starts + run >= first + count)).tolist():
            return tile.window.path, tile.window.at + (int(places[k]) + first - int(starts[k])) * item
    return Gather(window, scratch), first * item


def elements_of(window: Window, first: int, count: int, read: Read, scratch: int) -> bytearray:
    """The bytes of `count` elements from `first`, in row-major order."""
    item = ITEM_BYTES[window.dtype]
    found = bytearray(count * item)
    if window.tiles:
        Gather(window, scratch).read(read, memoryview(found), first * item)
    elif window.strides == row_major(window.shape) or prod(window.shape) == 1:
        read(window.path, memoryview(found), window.at + first * item)
    else:
        whole = Window(window.path, window.at, window.shape, row_major(window.shape), window.dtype, (Tile((0,) * len(window.shape), window),))
        Gather(whole, scratch).read(read, memoryview(found), first * item)
    return found


def _rows(tile: Tile, shape: tuple[int, ...], begin: int, end: int) -> tuple[Rows, int, Rows]:
    """Rows of the tile that may meet the elements [begin, end) of the tensor: where each begins in the tensor, how many
    elements each has, and where each begins in the tile."""
    inner, whole, own = tile.window.shape, row_major(shape), tile.window.strides
    if not prod(inner):
        return np.zeros(0, dtype=np.int64), 1, np.zeros(0, dtype=np.int64)
    run, left = 1, len(shape)
    while left and (inner[left - 1] == 1 or (whole[left - 1] == run and own[left - 1] == run)):
        run *= inner[left - 1]
        left -= 1
    outer = [d for d in range(left) if inner[d] > 1]
    base = sum(first * stride for first, stride in zip(tile.first, whole, strict=True))
    starts, places = np.array([base], dtype=np.int64), np.zeros(1, dtype=np.int64)
    for number, d in enumerate(outer):
        low, high = 0, inner[d]
        if number == 0:  # what lies within one index of this axis ends before the next begins
            past = base - sum(tile.first[k] * whole[k] for k in range(d + 1, len(shape)))
            low, high = max(0, (begin - past) // whole[d]), min(high, -(-(end - past) // whole[d]))
        steps = np.arange(low, max(low, high), dtype=np.int64)
        starts = (starts[:, None] + steps * whole[d]).ravel()
        places = (places[:, None] + steps * own[d]).ravel()
    return starts, run, places


def _copy_rows(tile: Tile, shape: tuple[int, ...], item: int, begin: int, end: int, into: memoryview, read: Read, scratch: int) -> None:
    starts, run, places = _rows(tile, shape, begin, end)
    meets = (starts < end) & (starts + run > begin)
    starts, places = starts[meets], places[meets]
    low, high = np.maximum(starts, begin), np.minimum(starts + run, end)
    froms = (places + low - starts) * item + tile.window.at
    _read_rows(tile.window.path, froms.tolist(), ((low - begin) * item).tolist(), ((high - low) * item).tolist(), into, read, scratch)


def _read_rows(path: str, froms: list[int], tos: list[int], sizes: list[int], into: memoryview, read: Read, limit: int) -> None:
    """Rows to their places: long ones one by one, short ones as many at once as fit `limit` bytes of scratch."""
    i = 0
    while i < len(froms):
        j = i + 1
        while sizes[i] < _LONG_BYTES and j < len(froms) and froms[j] >= froms[j - 1] and froms[j] + sizes[j] - froms[i] <= limit:
            j += 1
        if j == i + 1:
            read(path, into[tos[i] : tos[i] + sizes[i]], froms[i])
        else:
            scratch = memoryview(bytearray(froms[j - 1] + sizes[j - 1] - froms[i]))
            read(path, scratch, froms[i])
            for k in range(i, j):
                at = froms[k] - froms[i]
                into[tos[k] : tos[k] + sizes[k]] = scratch[at : at + sizes[k]]
        i = j
