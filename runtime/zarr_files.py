"""A zarr checkpoint in, where its tensors' bytes lie out: a folder per tensor, a file per chunk.

    decoder.final_layernorm.weight/.zarray           dtype, shape and chunk shape (zarr v2)
    decoder.final_layernorm.weight/0                 a chunk, raw and row-major; those at edges are as large as all others
    ..._extra_state/shard_0_4.pt                     an object

Sources: the zarr v2 specification; megatron.core.dist_checkpointing.strategies.zarr, which writes bfloat16 as such.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import product
from typing import Any

from .fault import Fault
from .read_window import read_at
from .torch_dist import Distributed, Place, of_model
from .window import ITEM_BYTES, Entry, Tile, Window, row_major, tiled

ARRAY = ".zarray"
_DTYPES = {
    "bfloat16": "bfloat16", "<V2": "bfloat16", "|V2": "bfloat16", "<f2": "float16", "<f4": "float32", "<f8": "float64",
    "<i8": "int64", "<i4": "int32", "<i2": "int16", "|i1": "int8", "<u8": "uint64", "<u4": "uint32", "<u2": "uint16", "|u1": "uint8", "|b1": "bool",
}  # fmt: skip


def read_zarr(place: Place, folder: str, names: Iterable[str]) -> Distributed:
    """The tensors of the checkpoint in `folder` ("" or ending in `/`). `names` are the files in it, relative to it."""
    there = set(names)
    found = Distributed()
    arrays = sorted(name.removesuffix(f"/{ARRAY}") for name in there if name.endswith(f"/{ARRAY}"))
    for name in arrays:
        if not of_model(name):
            found.others.append(name)
        else:
            found.entries.append(Entry(name, folder, _window(place, folder, name, there)))
    found.others += sorted(name for name in there if name.endswith(".pt") and "/" in name)
    return found


def _window(place: Place, folder: str, name: str, there: set[str]) -> Window:
    file = f"{folder}{name}/{ARRAY}"
    dtype, shape, chunks, separator = _described(place, file)
    item = ITEM_BYTES[dtype]
    size = item
    for extent in chunks:
        size *= extent
    tiles = []
    for index in product(*(range(-(-extent // chunk)) for extent, chunk in zip(shape, chunks, strict=True))):
        part = f"{name}/{separator.join(map(str, index)) or '0'}"
        if part not in there:
            raise Fault("missing-file", f"`{folder}{part}` is not there, and holds a part of `{name}`", help="download or copy it again")
        path, at, nbytes = place(folder + part)
        if nbytes != size:
            raise Fault("truncated-file", f"`{folder}{part}` has {nbytes:,} bytes, a chunk of `{name}` has {size:,}", help="download or copy it again")
        first = tuple(i * chunk for i, chunk in zip(index, chunks, strict=True))
        inner = tuple(min(chunk, extent - i) for i, chunk, extent in zip(first, chunks, shape, strict=True))
        tiles.append(Tile(first, Window(path, at, inner, row_major(chunks), dtype)))
    if not tiles:
        path, at, _ = place(file)
        return Window(path, at, shape, row_major(shape), dtype)
    return tiled(shape, dtype, tiles)


def _described(place: Place, file: str) -> tuple[str, tuple[int, ...], tuple[int, ...], str]:
    path, at, nbytes = place(file)
    try:
        said: Any = json.loads(bytes(read_at(path, at, nbytes)))
        dtype, shape, chunks = said["dtype"], tuple(said["shape"]), tuple(said["chunks"])
        separator = said.get("dimension_separator", ".")
        packed = said.get("compressor") or said.get("filters")
        whole = all(type(n) is int and n >= 0 for n in shape) and all(type(n) is int and n > 0 for n in chunks)
        if not whole or len(shape) != len(chunks) or separator not in (".", "/") or said.get("zarr_format") != 2:
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Fault("bad-metadata", f"`{file}` is not the description of an array of zarr version 2") from None
    if packed or said.get("order", "C") != "C":
        raise Fault("compressed-array", f"`{file}` says that the array is compressed or column-major; tensors are read where they lie, plain")
    if dtype not in _DTYPES:
        raise Fault("unknown-dtype", f"`{file}` has dtype {dtype!r}, which is not known here")
    return _DTYPES[dtype], shape, chunks, separator
