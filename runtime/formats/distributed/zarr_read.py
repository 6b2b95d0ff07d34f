"""A zarr checkpoint in, where its tensors' bytes lie out: a folder per tensor, a file per chunk.

    decoder.final_layernorm.weight/.zarray           dtype, shape and chunk shape (zarr v2)
    decoder.final_layernorm.weight/0                 a chunk, raw, in order C or F; those at edges are as large as all others
    ..._extra_state/shard_0_4.pt                     an object

Sources: the zarr v2 specification; megatron.core.dist_checkpointing.strategies.zarr, which writes bfloat16 as such.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from typing import Any

from ...fault import Fault
from ...files.read_window import read_at
from ...files.window import ITEM_BYTES, Entry, Tile, Window, are_extents, is_text, row_major, tiled
from .torch_dist_read import Distributed, Stretch, of_model

ARRAY, THIRD = ".zarray", "zarr.json"
_MOST_BYTES = 1 << 20  # of a description, which is a few hundred
_AGAIN = "save the arrays again plain: little-endian, with neither compressor nor filters, in zarr version 2"
# What else the format can say: the values that mean plain bytes, and the fault of any other.
_ONLY: dict[str, tuple[tuple[object, ...], str, str]] = {
    "compressor": ((None,), "compressed-array", "is compressed; tensors are read where they lie"),
    "filters": ((None, []), "compressed-array", "is filtered; tensors are read where they lie"),
}
_DTYPES = {
    "bfloat16": "bfloat16", "<V2": "bfloat16", "|V2": "bfloat16", "<f2": "float16", "<f4": "float32", "<f8": "float64",
    "<i8": "int64", "<i4": "int32", "<i2": "int16", "|i1": "int8", "<u8": "uint64", "<u4": "uint32", "<u2": "uint16", "|u1": "uint8", "|b1": "bool",
}  # fmt: skip


def read_zarr(place: Stretch, folder: str, names: Iterable[str]) -> Distributed:
    """The tensors of the checkpoint in `folder` ("" or ending in `/`). `names` are the files in it, relative to it."""
    there = set(names)
    found = Distributed()
    arrays = sorted(name.removesuffix(f"/{ARRAY}") for name in there if name.endswith(f"/{ARRAY}"))
    parts = _by_array(there, arrays)
    for name in arrays:
        if not is_text(name):
            raise Fault("bad-metadata", f"the array {name!r} has a name that is not UTF-8", help="rename its folder")
        if not of_model(name):
            found.others.append(name)
        else:
            found.entries.append(Entry(name, folder, _window(place, folder, name, parts[name])))
    third = next((name for name in sorted(there) if name.endswith(f"/{THIRD}")), None)
    if third is not None:
        raise Fault("unknown-format", f"`{folder}{third}` is of zarr version 3; arrays of version 2 are read here", help=_AGAIN)
    found.others += sorted(name for name in there if name.endswith(".pt") and "/" in name)
    return found


def _by_array(there: set[str], arrays: list[str]) -> dict[str, dict[str, str]]:
    """The files in the folder of each array and below it: what follows the folder's name, to the whole name."""
    found: dict[str, dict[str, str]] = {name: {} for name in arrays}
    for file in there:
        cut = len(file)
        while (cut := file.rfind("/", 0, cut)) > 0:
            if file[:cut] in found:
                found[file[:cut]][file[cut + 1 :]] = file
                break
    return found


def _window(place: Stretch, folder: str, name: str, parts: dict[str, str]) -> Window:
    """`parts`: the files in the array's folder, each called by what follows the folder's name."""
    file = f"{folder}{name}/{ARRAY}"
    array = _described(place, file)
    grid = tuple(-(-extent // chunk) for extent, chunk in zip(array.shape, array.chunks, strict=True))
    size = prod(array.chunks) * ITEM_BYTES[array.dtype]
    tiles = []
    for number in range(min(prod(grid), len(parts) + 1)):  # of more chunks than files, one of the first is not there
        index = _index(number, grid)
        part = array.spell(index)
        if part not in parts:
            raise _missing(folder, name, array, part)
        path, at, nbytes = place(folder + parts[part])
        if nbytes != size:
            raise Fault("truncated-file", f"`{folder}{name}/{part}` has {nbytes:,} bytes, a chunk of `{name}` has {size:,}", help="download or copy it again")
        first = tuple(i * chunk for i, chunk in zip(index, array.chunks, strict=True))
        inner = tuple(min(chunk, extent - i) for i, chunk, extent in zip(first, array.chunks, array.shape, strict=True))
        tiles.append(Tile(first, Window(path, at, inner, array.strides, array.dtype)))
    if not tiles:
        path, at, _ = place(file)
        return Window(path, at, array.shape, row_major(array.shape), array.dtype)
    return tiled(array.shape, array.dtype, tiles)


def _index(number: int, grid: tuple[int, ...]) -> tuple[int, ...]:
    """The index of the chunk `number`, counted with the last axis fastest."""
    index = []
    for extent in reversed(grid):
        number, i = divmod(number, extent)
        index.append(i)
    return tuple(reversed(index))


def _missing(folder: str, name: str, array: _Array, part: str) -> Fault:
    filled = () if array.fill is None else ("zarr takes such a chunk to be filled with one value; Megatron-core writes every chunk",)
    notes = (f"an array of {list(array.shape)} in chunks of {list(array.chunks)}", *filled)
    return Fault("missing-file", f"`{folder}{name}/{part}` is not there, and holds a part of `{name}`", notes=notes, help="download or copy it again")


@dataclass(frozen=True)
class _Array:
    """`strides`, in elements, are those within a chunk."""

    dtype: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    strides: tuple[int, ...]
    separator: str
    fill: object

    def spell(self, index: tuple[int, ...]) -> str:
        return self.separator.join(map(str, index)) or "0"


def _described(place: Stretch, file: str) -> _Array:
    path, at, nbytes = place(file)
    said: Any = None
    if nbytes <= _MOST_BYTES:
        with suppress(ValueError, RecursionError):
            said = json.loads(bytes(read_at(path, at, nbytes)))
    if not isinstance(said, dict) or said.get("zarr_format") != 2:
        raise _undescribed(file, "it is not the JSON of zarr version 2")
    for key, (known, code, what) in _ONLY.items():
        if said.get(key) not in known:
            raise Fault(code, f"`{file}` says that the array {what}", notes=(f"its `{key}` is {said.get(key)!r:.200}",), help=_AGAIN)
    dtype, order, separator = (said.get(key) for key in ("dtype", "order", "dimension_separator"))
    shape, chunks = _extents(said.get("shape")), _extents(said.get("chunks"))
    if shape is None or chunks is None or len(shape) != len(chunks) or 0 in chunks:
        raise _undescribed(file, "its `shape` and `chunks` are not as many whole numbers")
    if order not in ("C", "F", None) or separator not in (".", "/", None):
        raise _undescribed(file, "its `order` or `dimension_separator` is none of zarr's")
    if isinstance(dtype, str) and dtype.startswith(">"):
        raise Fault("big-endian", f"`{file}` has dtype {dtype!r:.40}: its numbers are not in a little-endian machine's order", help=_AGAIN)
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise Fault("unknown-dtype", f"`{file}` has dtype {dtype!r:.200}, which is not known here", notes=("known: " + ", ".join(_DTYPES),))
    strides = row_major(chunks) if order != "F" else row_major(chunks[::-1])[::-1]
    return _Array(_DTYPES[dtype], shape, chunks, strides, separator or ".", said.get("fill_value"))


def _extents(value: Any) -> tuple[int, ...] | None:
    return tuple(value) if isinstance(value, list) and are_extents(value) else None


def _undescribed(file: str, why: str) -> Fault:
    return Fault("bad-metadata", f"`{file}` is not the description of an array of zarr version 2: {why}", help="download or copy it again")
