"""zarr checkpoints laid out: a folder per tensor with `.zarray` and a file of plain bytes per chunk.

A stacked tensor has a chunk for each of its parts. Sources: megatron.core.dist_checkpointing up to 0.15, zarr version 2.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from ...fault import Fault
from ...files.file_layout import Region, tensor_bytes
from ..torch.zip_write import without_tensors
from .stacked import object_keys, stacked_tensors
from .torch_dist_write import Files, Objects, Tensors, Texts, texts_beside

# As numpy spells them; bfloat16 is spelled out, which Megatron and tensorstore agree on.
ZARR_DTYPES = {
    "float64": "<f8", "float32": "<f4", "float16": "<f2", "bfloat16": "bfloat16", "int64": "<i8", "int32": "<i4", "int16": "<i2",
    "int8": "|i1", "uint64": "<u8", "uint32": "<u4", "uint16": "<u2", "uint8": "|u1", "bool": "|b1", "complex64": "<c8",
    "complex128": "<c16",
}  # fmt: skip


@dataclass(frozen=True)
class _Plain:
    """A file that is one tensor's bytes."""

    regions: tuple[Region, ...]
    size: int
    needs_crc: bool = False

    def trail(self, i: int, crc: int) -> bytes:
        return b""

    def tail(self, crcs: Sequence[int]) -> bytes:
        return b""


def lay_out_zarr(folder: str, tensors: Tensors, objects: Objects) -> tuple[Files, Texts]:
    """The files of `tensors` (name, dtype, shape) in `folder`, which is empty or ends in `/`, and the texts beside them.

    Objects are all None.
    """
    sizes = tensor_bytes(tensors)
    for name, dtype, _ in tensors:
        if dtype not in ZARR_DTYPES:
            raise Fault("unknown-dtype", f"`{name}` ({dtype}) cannot be stored in zarr", help="write it with --format torch_dist")
    files: Files = []
    texts: Texts = []
    for tensor in stacked_tensors(tensors):
        inner = _folder(folder, tensor.stack.name)
        texts.append((f"{inner}/.zarray", _zarray(tensor.dtype, tensor.whole, tensor.part)))
        for index, position in zip(tensor.stack.indices, tensor.stack.positions, strict=True):
            chunk = ".".join(map(str, (*index, *(0 for _ in tensor.shape)))) or "0"
            nbytes = sizes[position]
            region = Region(tensors[position][0], tensor.dtype, tensor.shape, 0, nbytes, b"")
            files.append((f"{inner}/{chunk}", _Plain((region,), nbytes), [position]))
    files.sort(key=lambda file: file[2])
    for key in object_keys(objects):
        name, _, shard = key.rpartition("/")
        texts.append((f"{_folder(folder, name)}/{shard}.pt", without_tensors(None, shard)))
    return files, [*texts, *texts_beside(folder, "zarr")]


def _folder(folder: str, name: str) -> str:
    """The folder of a tensor or object, which is its name."""
    if name in ("", ".", "..") or "/" in name or "\\" in name or "\0" in name:
        raise Fault(
            "bad-name", f"`{name}` cannot be stored in zarr, where the name of a tensor is that of a folder",
            help="write it with --format torch_dist",
        )  # fmt: skip
    return folder + name


def _zarray(dtype: str, shape: tuple[int, ...], chunks: tuple[int, ...]) -> bytes:
    description = {
        "zarr_format": 2, "shape": list(shape), "chunks": list(chunks), "dtype": ZARR_DTYPES[dtype],
        "order": "C", "compressor": None, "filters": None, "fill_value": None,
    }  # fmt: skip
    return json.dumps(description, indent=4, sort_keys=True).encode()
