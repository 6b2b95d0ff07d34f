"""What a target file looks like around its tensors: the contract between formats and the engine.

The file is, for each region in order, `lead`, the region's data, `trail(i, crc)`; and then `tail(crcs)`. It can
so be written in ascending order, with checksums that are known only once the data has passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

from ..fault import Fault
from .window import ITEM_BYTES, SideFile


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
class TargetFile:
    """A file to write; `targets` are the global numbers of the tensors in its regions. It begins at byte `at`, which
    is not 0 if it is a member of the archive called `name`."""

    name: str
    layout: FileLayout
    targets: tuple[int, ...]
    at: int = 0


@dataclass(frozen=True)
class Put:
    """Bytes that are known beforehand, or stand in another file, and go to `file` from byte `at`."""

    file: str
    at: int
    content: bytes | SideFile

    @property
    def nbytes(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.nbytes
