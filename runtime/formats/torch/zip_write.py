"""The layout of a torch zip file, byte for byte as torch.save writes it, with checksums that come after the data.

[data.pkl][.format_version][.storage_alignment][byteorder]   known, in the first region's lead
[header 0]data 0[descriptor 0] [header 1]data 1 ...           the regions
[version][.data/serialization_id][directory][end]             the tail
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...files.file_layout import FileLayout, Region, tensor_bytes
from .pickle_write import pickle_tensors, pickle_value
from .zip_read import CENTRAL, END, END64, LOCAL, LOCATOR

ALIGNMENT = 64
WIDE = 0xFFFFFFFF  # from here on sizes and offsets stand in zip64 fields
IDENTITY = ".data/serialization_id"


@dataclass(frozen=True)
class _Member:
    """A record: its name with folder, where its header and payload begin, and its bytes."""

    name: bytes
    header_at: int
    nbytes: int

    @property
    def wide(self) -> bytes:
        """The zip64 extra field: sizes, then offset, each only if it needs it."""
        values = ([self.nbytes] * 2 if self.nbytes >= WIDE else []) + (
            [self.header_at] if self.header_at >= WIDE else []
        )
        return struct.pack(f"<2H{len(values)}Q", 1, 8 * len(values), *values) if values else b""

    @property
    def flags(self) -> int:
        return 0x808 if self.nbytes else 0x800  # names are UTF-8; sizes and checksum follow the data, if any

    @cached_property
    def header(self) -> bytes:
        """The local header, padded so that the payload is aligned."""
        bare = LOCAL.size + len(self.name) + len(self.wide) + 4
        padding = -(self.header_at + bare) % ALIGNMENT
        extra = self.wide + b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
        return LOCAL.pack(b"PK\3\4", 0, self.flags, 0, 0, 0, 0, 0, 0, len(self.name), len(extra)) + self.name + extra

    @property
    def at(self) -> int:
        return self.header_at + len(self.header)

    def descriptor(self, crc: int) -> bytes:
        if not self.nbytes:
            return b""
        return struct.pack("<4sI2Q" if self.wide else "<4s3I", b"PK\7\10", crc, self.nbytes, self.nbytes)

    @property
    def end(self) -> int:
        return self.at + self.nbytes + len(self.descriptor(0))

    def entry(self, crc: int) -> bytes:
        """The record's line in the directory."""
        size, at = min(self.nbytes, WIDE), min(self.header_at, WIDE)
        lengths = (len(self.name), len(self.wide), 0, 0, 0)
        return (
            CENTRAL.pack(b"PK\1\2", 0, 0, self.flags, 0, 0, 0, crc, size, size, *lengths, 0, at) + self.name + self.wide
        )


@dataclass(frozen=True)
class _Zip:
    regions: tuple[Region, ...]
    size: int
    pickle: bytes
    folder: str
    fixed: tuple[tuple[_Member, bytes], ...]
    members: tuple[_Member, ...]
    closing: tuple[_Member, _Member]
    needs_crc: bool = True

    def trail(self, i: int, crc: int) -> bytes:
        return self.members[i].descriptor(crc)

    def tail(self, crcs: Sequence[int]) -> bytes:
        if len(crcs) != len(self.members):
            raise ValueError(f"{len(self.members)} checksums are due, not {len(crcs)}")
        digest = hashlib.sha256(self.pickle + struct.pack(f"<{len(crcs)}I", *crcs)).digest()
        identity = f"{int.from_bytes(digest, 'little') % 10**40:040}".encode()
        last = list(zip(self.closing, (b"3\n", identity), strict=True))
        head = b"" if self.members else b"".join(_whole(*part) for part in self.fixed)
        directory = b"".join(
            member.entry(crc)
            for member, crc in (
                *((member, zlib.crc32(data)) for member, data in self.fixed),
                *zip(self.members, crcs, strict=True),
                *((member, zlib.crc32(data)) for member, data in last),
            )
        )
        at, count = self.closing[-1].end, len(self.fixed) + len(self.members) + len(last)
        return head + b"".join(_whole(*part) for part in last) + directory + _end(at, len(directory), count)


def lay_out(
    tensors: Sequence[tuple[str, str, tuple[int, ...]]], stem: str, value: Any = None, pickled: bytes | None = None
) -> FileLayout:
    """The layout of a file that holds the dict `tensors`, (name, dtype, shape) each, in folder `stem`.

    Or another `value`, in which the `Slot` of tensor i has the key `str(i)`; or what `pickle_value` made of one.
    """
    if pickled is None:
        pickled = pickle_tensors(tensors) if value is None else pickle_value(value)
    return _lay_out(tensors, stem, pickled)


def without_tensors(value: Any, stem: str) -> bytes:
    """A whole torch file of a value that holds no tensors, such as None."""
    return _lay_out((), stem, pickle_value(value)).tail(())


def _lay_out(tensors: Sequence[tuple[str, str, tuple[int, ...]]], stem: str, pickle: bytes) -> FileLayout:
    folder = stem if stem and stem.isascii() and stem.isprintable() and "/" not in stem else "archive"
    sizes = tensor_bytes(tensors)
    at = 0
    fixed: list[tuple[_Member, bytes]] = []
    known = {"data.pkl": pickle, ".format_version": b"1", ".storage_alignment": b"64", "byteorder": b"little"}
    for name, data in known.items():
        fixed.append((_Member(f"{folder}/{name}".encode(), at, len(data)), data))
        at = fixed[-1][0].end
    lead = b"".join(_whole(*part) for part in fixed)
    members: list[_Member] = []
    regions: list[Region] = []
    for i, ((name, dtype, shape), nbytes) in enumerate(zip(tensors, sizes, strict=True)):
        member = _Member(f"{folder}/data/{i}".encode(), at, nbytes)
        members.append(member)
        regions.append(Region(name, dtype, tuple(shape), member.at, nbytes, (b"" if i else lead) + member.header))
        at = member.end
    version = _Member(f"{folder}/version".encode(), at, 2)
    identity = _Member(f"{folder}/{IDENTITY}".encode(), version.end, 40)
    everything = [*(member for member, _ in fixed), *members, version, identity]
    directory = sum(CENTRAL.size + len(member.name) + len(member.wide) for member in everything)
    size = identity.end + directory + END64.size + LOCATOR.size + END.size
    return _Zip(tuple(regions), size, pickle, folder, tuple(fixed), tuple(members), (version, identity))


def _whole(member: _Member, data: bytes) -> bytes:
    return member.header + data + member.descriptor(zlib.crc32(data))


def _end(at: int, nbytes: int, count: int) -> bytes:
    """The end of the directory, in its zip64 form and in the plain one that points past what it cannot say."""
    wide = END64.pack(b"PK\6\6", END64.size - 12, 0x031E, 45, 0, 0, count, count, nbytes, at)
    locator = LOCATOR.pack(b"PK\6\7", 0, at + nbytes, 1)
    few = min(count, 0xFFFF)
    return wide + locator + END.pack(b"PK\5\6", 0, 0, few, few, min(nbytes, WIDE), min(at, WIDE), 0)
