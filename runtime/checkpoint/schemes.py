"""A tensor of packed codes and its scales in; how each number of it is calculated, out, or what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

from ..files.read_window import integers
from ..files.window import Coded, Entry, Tile, Window, at_index, tiled, with_axes
from .quantization import said_integers

POWERS = ("uint8", "float8_e8m0fnu")  # dtypes of exponents
_FLOAT4 = "float4_e2m1fn"
_GROUPS = {"float8_e4m3fn": 16, "uint8": 32, "float8_e8m0fnu": 32}  # how many four-bit floats have a scale, by its dtype
_OF_INTEGERS = ("float32", "bfloat16", "float16")
_BITS = (4, 8)  # of integers


class MisfitError(Exception):
    """What is wrong."""


def said_bits(said: Mapping[str, Any]) -> tuple[int, ...]:
    """How many bits integers may have, of those that are decoded."""
    groups = said_integers(said)
    return tuple(n for n in _BITS if not groups or any(group.get("num_bits") == n for group in groups))


def blocks(entry: Entry, scale: Entry) -> Coded:
    """MXFP4 in blocks of 16 bytes, as gpt-oss has it: stored with the rows of a matrix last but one, and meant with them last."""
    *before, count, size = entry.shape
    _check_dtype(scale, POWERS)
    if size != 16:
        raise MisfitError(f"`{entry.name}` has blocks of {size} bytes, and those of MXFP4 have 16")
    _check_shape(entry, scale, entry.shape[:-1])
    return Coded(_side_by_side(entry.window), scale.window, (1, 1, 32), (0, 0, 0), _FLOAT4, (*before, 32 * count), (0, 2, 1))


def floats(entry: Entry, scale: Entry, second: Entry | None = None) -> Coded:
    """NVFP4 or MXFP4 in rows."""
    _check_dtype(scale, tuple(_GROUPS))
    columns, group = 2 * entry.shape[-1], _GROUPS[scale.dtype]
    if columns % group:
        raise MisfitError(f"`{entry.name}` has {columns} numbers in a row, and a scale is for {group}")
    _check_shape(entry, scale, (*entry.shape[:-1], columns // group))
    if second is not None:
        _check_dtype(second, ("float32",))
        if prod(second.shape) != 1:
            raise MisfitError(f"`{second.name}` is {list(second.shape)}, and it is to be one number")
    number = at_index(second.window, (0,) * len(second.shape)) if second is not None else None
    return _grouped(entry, scale.window, _FLOAT4, columns, group, number, entry.name.endswith("_packed"))


def packed_integers(entry: Entry, scale: Entry, shape: Entry, said: Mapping[str, Any]) -> Coded:
    """Integers in rows of words, `shape` of them; a group's size follows from the scales, and is one that the config says, if it says any."""
    _check_dtype(scale, _OF_INTEGERS)
    _check_dtype(shape, ("int64", "int32"))
    whole = integers(shape.window) if shape.shape == (len(entry.shape),) else ()
    fit = [bits for bits in said_bits(said) if whole and whole[:-1] == entry.shape[:-1] and whole[-1] >= 0 and -(-whole[-1] * bits // 32) == entry.shape[-1]]
    if not fit:
        raise MisfitError(f"`{shape.name}` says {list(whole)}, and `{entry.name}` is {list(entry.shape)}")
    groups = [group for group in said_integers(said) if group.get("num_bits") == fit[0]]
    if groups and not any(group.get("symmetric", True) for group in groups):
        raise MisfitError(f"`{entry.name}` has no zero point, and the config says that there is one")
    columns, scales = whole[-1], scale.window
    if prod(scale.shape) == 1:
        scales = with_axes(at_index(scales, (0,) * len(scale.shape)), len(entry.shape))
        return Coded(entry.window, scales, tuple(max(1, n) for n in whole), (0,) * len(whole), f"int{fit[0]}", whole, tuple(range(len(whole))))
    count = scale.shape[-1] if scale.shape else 0
    if scale.shape[:-1] != whole[:-1] or not count or columns % count:
        raise MisfitError(f"`{scale.name}` is {list(scale.shape)}, and no scales for groups of `{entry.name}`, of {list(whole)}")
    sizes = {group["group_size"] for group in groups if group.get("strategy", "group") == "group" and type(group.get("group_size")) is int}
    whole_rows = groups and all(group.get("strategy") in ("channel", "tensor") for group in groups)
    if count > 1 and (whole_rows or (sizes and columns // count not in sizes)):
        said_so = ", ".join(map(str, sorted(sizes))) or "a whole one"
        raise MisfitError(f"`{scale.name}` is {list(scale.shape)}, a scale for {columns // count} of a row, and the config says {said_so}")
    return _grouped(entry, scales, f"int{fit[0]}", columns, max(1, columns // count))


def _grouped(entry: Entry, scales: Window, kind: str, columns: int, group: int, second: Window | None = None, divided: bool = False) -> Coded:
    """Codes in rows, with a scale for each group of a row."""
    axes = len(entry.shape)
    return Coded(entry.window, scales, (*(1,) * (axes - 1), group), (0,) * axes, kind, (*entry.shape[:-1], columns), tuple(range(axes)), second, divided)


def _check_dtype(scale: Entry, known: tuple[str, ...]) -> None:
    if scale.dtype not in known:
        raise MisfitError(f"`{scale.name}` is of {scale.dtype}, and is to be of {' or '.join(known)}")


def _check_shape(entry: Entry, scale: Entry, wanted: tuple[int, ...]) -> None:
    if scale.shape != wanted:
        raise MisfitError(f"`{scale.name}` is {list(scale.shape)}; the scales of `{entry.name}`, {list(entry.shape)}, are {list(wanted)}")


def _side_by_side(window: Window) -> Window:
    """The window with its last two axes as one."""
    *before, count, size = window.shape
    shape = (*before, count * size)
    if not window.tiles and (count <= 1 or window.strides[-2] == size * window.strides[-1]):
        return Window(window.path, window.at, shape, (*window.strides[:-2], window.strides[-1]), window.dtype)
    tiles = []
    for tile in window.tiles or (Tile((0,) * len(window.shape), window),):
        *first, at, within = tile.first
        inner = tile.window
        for k in range(inner.shape[-2]):
            of_block = Window(inner.path, inner.at + k * inner.strides[-2], (*inner.shape[:-2], inner.shape[-1]), (*inner.strides[:-2], inner.strides[-1]), inner.dtype)
            tiles.append(Tile((*first, (at + k) * size + within), of_block))
    return tiled(shape, window.dtype, tiles)
