"""A window and offsets of elements in, their bits out: positional reads and plain numpy indexing.

Offsets are row-major in the tensor, whatever the window's strides or tiles are. They come as one array for each loop, of
which all sums are meant, so that a block of a tensor costs no memory beyond its elements. What is stored as codes and scales
is decoded.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..fault import Fault
from ..files.read_window import read_descriptor
from ..files.window import ITEM_BYTES, Window, row_major
from .numbers import Array, bits_of, from_numbers, numbers

Offsets: TypeAlias = NDArray[np.int64]

NEAR = 2048  # elements between two runs that are read over rather than skipped
MOST_OPEN = 32  # files that are held open


class Files:
    """Open files by path, the last few used; and tensors that are held in memory instead, by the path of their window."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, int] = OrderedDict()
        self.held: dict[str, Array] = {}
        self.bytes_read = 0

    def __enter__(self) -> Files:
        return self

    def __exit__(self, *_: object) -> None:
        while self._open:
            os.close(self._open.popitem()[1])

    def read(self, path: str, at: int, nbytes: int) -> bytes | bytearray:
        """Exactly `nbytes` bytes from `at`. Raises `Fault` where the file ends before."""
        if path in self.held:
            return self.held[path].tobytes()[at : at + nbytes]
        try:
            if path not in self._open:
                while len(self._open) >= MOST_OPEN:
                    os.close(self._open.popitem(last=False)[1])
                self._open[path] = os.open(path, os.O_RDONLY)
        except OSError as problem:
            raise Fault("unreadable-file", f"`{path}` cannot be read: {problem.strerror}") from None
        self._open.move_to_end(path)
        self.bytes_read += nbytes
        return read_descriptor(self._open[path], path, at, nbytes)


def summed(base: int, offsets: Sequence[Offsets]) -> Offsets:
    """All sums of `base` and one offset of each array; an axis for each array."""
    total = np.full((1,) * len(offsets), base, dtype=np.int64)
    for k, each in enumerate(offsets):
        total = total + each.reshape([-1 if i == k else 1 for i in range(len(offsets))])
    return total


def index_of(shape: Sequence[int], offset: int) -> tuple[int, ...]:
    """The index of a row-major offset."""
    index: list[int] = []
    for extent in reversed(shape):
        index.insert(0, offset % extent)
        offset //= extent
    return tuple(index)


def take(files: Files, window: Window, base: int, offsets: Sequence[Offsets]) -> Array:
    """The elements of `window` at all sums of `base` and `offsets`, as bits; an axis for each array of offsets."""
    shape = [len(each) for each in offsets]
    if not prod(shape):
        return np.empty(shape, bits_of(window.dtype))
    if window.coded is not None:
        return _decoded(files, window, base, offsets)
    if window.tiles:
        return _from_tiles(files, window, summed(base, offsets).ravel()).reshape(shape)
    if window.strides == row_major(window.shape) or prod(window.shape) == 1:
        run = next((k for k, each in enumerate(offsets) if len(each) > 1 and _is_run(each)), None)
        rows = summed(base + (int(offsets[run][0]) if run is not None else 0), [o for k, o in enumerate(offsets) if k != run])
        width = shape[run] if run is not None else 1
        found = _runs(files, window, rows.ravel(), width).reshape(*rows.shape, width)
        return np.moveaxis(found, -1, run) if run is not None else found.reshape(shape)
    places = _strided(window, summed(base, offsets).ravel())
    return _runs(files, window, places, 1).reshape(shape)


def _decoded(files: Files, window: Window, base: int, offsets: Sequence[Offsets]) -> Array:
    """Codes, each times its scale, in float32: what a conversion defines (see `files.decode_window`), written down a second time."""
    coded = window.coded
    assert coded is not None
    codes = take(files, coded.codes, base, offsets)
    places = np.zeros(codes.shape, dtype=np.int64)
    whole = summed(base, offsets)
    axes = zip(window.shape, row_major(window.shape), coded.first, coded.block, row_major(coded.scales.shape), strict=True)
    for extent, step, first, block, stride in axes:
        places += (whole // step % extent + first) // block * stride
    near, which = np.unique(places, return_inverse=True)
    scales = numbers(take(files, coded.scales, 0, [near]), coded.scales.dtype).astype(np.float32)
    with np.errstate(all="ignore"):
        return from_numbers(numbers(codes, coded.codes.dtype).astype(np.float32) * scales[which].reshape(codes.shape), window.dtype)


def _is_run(offsets: Offsets) -> bool:
    return int(offsets[-1]) - int(offsets[0]) == len(offsets) - 1 and bool((np.diff(offsets) == 1).all())


def _strided(window: Window, offsets: Offsets) -> Offsets:
    """Row-major offsets of a tensor to offsets from the window's first element."""
    places = np.zeros_like(offsets)
    for extent, step, stride in zip(window.shape, row_major(window.shape), window.strides, strict=True):
        places += offsets // step % extent * stride
    return places


def _runs(files: Files, window: Window, starts: Offsets, width: int) -> Array:
    """Runs of `width` elements each, at offsets from the window's first element; those that lie near are read at once."""
    item, bits = ITEM_BYTES[window.dtype], bits_of(window.dtype)
    order = np.argsort(starts, kind="stable")
    ordered = starts[order]
    most = max(4 * len(starts) * width, 1 << 16)
    cuts = [0, *(np.flatnonzero(np.diff(ordered) > width + NEAR) + 1).tolist(), len(ordered)]
    out = np.empty((len(starts), width), bits)
    for begin, end in pairwise(cuts):
        while begin < end:
            first = int(ordered[begin])
            stop = end if int(ordered[end - 1]) + width - first <= most else begin + max(1, int(np.searchsorted(ordered[begin:end], first + most - width, "right")))
            last = int(ordered[stop - 1]) + width
            data = np.frombuffer(files.read(window.path, window.at + first * item, (last - first) * item), bits)
            windows = np.lib.stride_tricks.sliding_window_view(data, width) if width > 1 else data.reshape(-1, 1)
            out[order[begin:stop]] = windows[ordered[begin:stop] - first]
            begin = stop
    return out


def _from_tiles(files: Files, window: Window, offsets: Offsets) -> Array:
    """Each element from the tile that covers it."""
    out = np.empty(len(offsets), bits_of(window.dtype))
    left = np.ones(len(offsets), dtype=bool)
    steps = row_major(window.shape)
    indices = [offsets // step % extent for extent, step in zip(window.shape, steps, strict=True)]
    for tile in window.tiles:
        inside = left.copy()
        for index, first, extent in zip(indices, tile.first, tile.window.shape, strict=True):
            inside &= (index >= first) & (index < first + extent)
        spots = np.flatnonzero(inside)
        if len(spots):
            places = np.zeros(len(spots), dtype=np.int64)
            for index, first, stride in zip(indices, tile.first, tile.window.strides, strict=True):
                places += (index[spots] - first) * stride
            out[spots] = _runs(files, tile.window, places, 1)[:, 0]
            left[spots] = False
            if not left.any():
                break
    if left.any():
        raise Fault("uncovered-tensor", f"a tensor in `{window.path}` is covered by no part of it at element {int(offsets[left][0]):,}")
    return out
