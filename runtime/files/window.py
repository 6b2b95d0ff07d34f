"""A window: where a tensor's elements lie. Readers yield windows, the engine sees nothing else of a format."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

# dtype name -> bytes per element. Names are torch's own, without `torch.`.
ITEM_BYTES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1,
    "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1,
    "bool": 1, "complex64": 8, "complex128": 16,
}  # fmt: skip


MOST_AXES = 64  # as torch and numpy have it


@dataclass(frozen=True)
class Window:
    """`at` is the byte offset of element [0, ..., 0] in the file at `path`; `strides` are in elements.

    A tensor that lies in several places has `tiles`: they cover it, each element once. One that is stored as codes and
    scales has `coded`, and `dtype` is what it is decoded to. The `strides` of both are those of a contiguous tensor, `path`
    and `at` those of the first tile, or of the codes.
    """

    path: str
    at: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str
    tiles: tuple[Tile, ...] = ()
    coded: Coded | None = None

    @property
    def composed(self) -> bool:
        """Whether its elements do not lie in one file as they are."""
        return bool(self.tiles) or self.coded is not None


@dataclass(frozen=True)
class Tile:
    """A block of a tensor: where it begins in it, and its own window, which is `window.shape` large."""

    first: tuple[int, ...]
    window: Window


@dataclass(frozen=True)
class Coded:
    """What a tensor is calculated from: element i is code i times the scale at (i + first) // block, axis by axis.

    `codes` has the tensor's shape, `scales` as many axes. See `decode_window` for how it is rounded.
    """

    codes: Window
    scales: Window
    block: tuple[int, ...]
    first: tuple[int, ...]


@dataclass(frozen=True)
class SideFile:
    """What stands beside the tensors: `nbytes` bytes from `at` of the file at `path`, which may be an archive."""

    name: str
    path: str
    at: int
    nbytes: int


@dataclass(frozen=True)
class Entry:
    """A named tensor of a checkpoint; `file` is its file's name relative to the checkpoint's root, with `/`."""

    name: str
    file: str
    window: Window

    @property
    def shape(self) -> tuple[int, ...]:
        return self.window.shape

    @property
    def dtype(self) -> str:
        return self.window.dtype


def are_extents(values: Sequence[Any]) -> bool:
    """Whether what a file says are sizes, strides or offsets: a whole number from 0 for each axis, of at most `MOST_AXES`."""
    return len(values) <= MOST_AXES and all(type(n) is int and 0 <= n < 1 << 63 for n in values)


def is_text(name: str) -> bool:
    """Whether a name can be written down, as half of a surrogate pair cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides, in elements, of a contiguous row-major tensor of `shape`."""
    strides = [1] * len(shape)
    for i in range(len(shape) - 1, 0, -1):
        strides[i - 1] = strides[i] * shape[i]
    return tuple(strides)


def parts_of(window: Window) -> tuple[Window, ...]:
    """The windows of its tiles, of its codes and scales, or itself."""
    if window.coded is not None:
        return (*parts_of(window.coded.codes), *parts_of(window.coded.scales))
    return tuple(tile.window for tile in window.tiles) or (window,)


def decoded(codes: Window, scales: Window, block: tuple[int, ...], first: tuple[int, ...], dtype: str) -> Window:
    """The window of a tensor that is stored as codes and scales."""
    return Window(codes.path, codes.at, codes.shape, row_major(codes.shape), dtype, coded=Coded(codes, scales, block, first))


def paths_of(window: Window) -> tuple[str, ...]:
    """The files that it lies in."""
    return tuple(dict.fromkeys(part.path for part in parts_of(window)))


def tiled(shape: tuple[int, ...], dtype: str, tiles: Sequence[Tile]) -> Window:
    """The window of a tensor of `shape` that `tiles` cover; where one covers all, its own."""
    if len(tiles) == 1 and tiles[0].window.shape == shape:
        return tiles[0].window
    ordered = tuple(sorted(tiles, key=lambda tile: tile.first))
    return Window(ordered[0].window.path, ordered[0].window.at, shape, row_major(shape), dtype, ordered)


def with_axes(window: Window, more: int) -> Window:
    """The same elements, with `more` axes of one element after the others."""
    ones = (1,) * more
    tiles = tuple(Tile((*tile.first, *(0,) * more), with_axes(tile.window, more)) for tile in window.tiles)
    return replace(window, shape=(*window.shape, *ones), strides=(*window.strides, *ones), tiles=tiles)


def at_index(window: Window, index: tuple[int, ...]) -> Window:
    """The part of `window` at `index`, which counts along its first axes; the axes are gone from the result."""
    n = len(index)
    shape = window.shape[n:]
    if (coded := window.coded) is not None:
        of_scales = tuple((i + first) // block for i, first, block in zip(index, coded.first, coded.block, strict=False))
        return decoded(at_index(coded.codes, index), at_index(coded.scales, of_scales), coded.block[n:], coded.first[n:], window.dtype)
    if not window.tiles:
        at = window.at + sum(i * stride for i, stride in zip(index, window.strides, strict=False)) * ITEM_BYTES[window.dtype]
        return Window(window.path, at, shape, window.strides[n:], window.dtype)
    parts = []
    for tile in window.tiles:
        within = tuple(i - first for i, first in zip(index, tile.first, strict=False))
        if all(0 <= i < extent for i, extent in zip(within, tile.window.shape, strict=False)):
            parts.append(Tile(tile.first[n:], at_index(tile.window, within)))
    return tiled(shape, window.dtype, parts)


def block_of(window: Window, first: tuple[int, ...], shape: tuple[int, ...]) -> Window:
    """The block of `shape` elements of `window` that begins at `first`, within it."""
    if (coded := window.coded) is not None:
        return decoded(block_of(coded.codes, first, shape), coded.scales, coded.block, tuple(i + j for i, j in zip(first, coded.first, strict=True)), window.dtype)
    if not window.tiles or 0 in shape:
        at = window.at + sum(i * stride for i, stride in zip(first, window.strides, strict=True)) * ITEM_BYTES[window.dtype]
        return Window(window.path, at, shape, window.strides, window.dtype)
    parts = []
    for tile in window.tiles:
        begin = tuple(map(max, first, tile.first))
        end = tuple(min(i + n, j + m) for i, n, j, m in zip(first, shape, tile.first, tile.window.shape, strict=True))
        if all(i < j for i, j in zip(begin, end, strict=True)):
            inner = block_of(tile.window, tuple(i - j for i, j in zip(begin, tile.first, strict=True)), tuple(j - i for i, j in zip(begin, end, strict=True)))
            parts.append(Tile(tuple(i - j for i, j in zip(begin, first, strict=True)), inner))
    return tiled(shape, window.dtype, parts)


def along(window: Window, axes: int) -> dict[tuple[int, ...], Window]:
    """The part at each index of the first `axes` axes, as `at_index` has it; each tile is looked at once."""
    indices = product(*(range(extent) for extent in window.shape[:axes]))
    if not window.tiles:
        return {index: at_index(window, index) for index in indices}
    parts: dict[tuple[int, ...], list[Tile]] = {index: [] for index in indices}
    for tile in window.tiles:
        for within in product(*(range(extent) for extent in tile.window.shape[:axes])):
            index = tuple(first + i for first, i in zip(tile.first, within, strict=False))
            parts[index].append(Tile(tile.first[axes:], at_index(tile.window, within)))
    return {index: tiled(window.shape[axes:], window.dtype, tiles) for index, tiles in parts.items()}
