"""Tensors in, the layout of a safetensors file of them out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...fault import Fault
from ...files.dtypes import CODE_OF
from ...files.file_layout import FileLayout, Region, tensor_bytes


@dataclass(frozen=True)
class SafetensorsLayout:
    regions: tuple[Region, ...]
    size: int
    header: bytes
    needs_crc: bool = False

    def trail(self, i: int, crc: int) -> bytes:
        return b""

    def tail(self, crcs: Sequence[int]) -> bytes:
        return b"" if self.regions else self.header


def lay_out_safetensors(
    tensors: Sequence[tuple[str, str, tuple[int, ...]]], metadata: Mapping[str, str] | None = None
) -> FileLayout:
    """A safetensors file of `tensors` (name, dtype, shape), data in the given order, without gaps.

    `metadata` are further texts of its `__metadata__`; `format` is always `pt`, without which transformers refuses the file.
    """
    header: dict[str, object] = {"__metadata__": {**(metadata or {}), "format": "pt"}}
    starts, at = [], 0
    sizes = tensor_bytes(tensors)
    for (name, dtype, shape), nbytes in zip(tensors, sizes, strict=True):
        if dtype not in CODE_OF or name == "__metadata__":
            raise Fault("unknown-dtype", f"`{name}` ({dtype}) cannot be stored in safetensors")
        header[name] = {"dtype": CODE_OF[dtype], "shape": list(shape), "data_offsets": [at, at + nbytes]}
        starts.append(at)
        at += nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    lead = len(text).to_bytes(8, "little") + text
    regions = tuple(
        Region(name, dtype, tuple(shape), len(lead) + start, nbytes, b"" if i else lead)
        for i, ((name, dtype, shape), start, nbytes) in enumerate(zip(tensors, starts, sizes, strict=True))
    )
    return SafetensorsLayout(regions, len(lead) + at, lead)
