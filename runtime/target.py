"""What a target file looks like around its tensors: the contract between formats and the engine.

The file is, for each region in order, `lead`, the region's data, `trail(i, crc)`; and then `tail(crcs)`. It can
so be written in ascending order, with checksums that are known only once the data has passed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

from .dtype_names import CODE_OF
from .fault import Fault
from .window import ITEM_BYTES


@dataclass(frozen=True)
class Region:
    """Where a tensor's contiguous data goes. `lead` stands directly before `at`, after the last region's trail."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    at: int
    nbytes: int
    lead: bytes


class FileLayout(Protocol):
    """A file to be written. `size` is exact; `needs_crc` says whether `trail` and `tail` use checksums."""

    @property
    def regions(self) -> tuple[Region, ...]: ...
    @property
    def needs_crc(self) -> bool: ...
    @property
    def size(self) -> int: ...
    def trail(self, i: int, crc: int) -> bytes: ...
    def tail(self, crcs: Sequence[int]) -> bytes: ...


def tensor_bytes(tensors: Sequence[tuple[str, str, tuple[int, ...]]]) -> list[int]:
    """Bytes of each tensor; faults for a name that occurs twice and a dtype that is unknown."""
    seen: set[str] = set()
    for name, dtype, _ in tensors:
        if name in seen:
            raise Fault("duplicate-tensor", f"`{name}` would be written twice to one file")
        if dtype not in ITEM_BYTES:
            raise Fault("unknown-dtype", f"`{name}` has dtype {dtype}, which is not known here")
        seen.add(name)
    return [prod(shape) * ITEM_BYTES[dtype] for _, dtype, shape in tensors]


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
    """A safetensors file of `tensors` (name, dtype, shape), data in the given order, without gaps."""
    header: dict[str, object] = {"__metadata__": dict({"format": "pt"} if metadata is None else metadata)}
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


def lay_out_torch_zip(
    tensors: Sequence[tuple[str, str, tuple[int, ...]]], stem: str, value: Any = None
) -> FileLayout:
    """A torch file of the dict `tensors` (name, dtype, shape), as torch.save lays one out in a file called `stem`.

    Or of another `value`, which holds the tensors at its `Slot`s.
    """
    from .torch_zip_layout import lay_out

    return lay_out(tensors, stem, value)
