"""A torch zip archive in, where each record's bytes lie out. The directory and every local header are checked."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from itertools import pairwise

from ...fault import Fault
from ...files.read_window import read_descriptor

LEGACY = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
DIRECTORY_BYTES = 1 << 28
CENTRAL, LOCAL, END = struct.Struct("<4s6H3I5H2I"), struct.Struct("<4s5H3I2H"), struct.Struct("<4s4H2IH")
END64, LOCATOR = struct.Struct("<4sQ2H2I4Q"), struct.Struct("<4sIQI")


@dataclass(frozen=True)
class Record:
    """`at` is where the payload begins, `header_at` where its local header does."""

    name: str
    header_at: int
    at: int
    nbytes: int


def read_directory(path: str, file: str, at: int = 0, nbytes: int | None = None) -> dict[str, Record]:
    """The records of the archive at `path` by name, without the archive's own folder name.

    With `nbytes` the archive is that many bytes from `at`; what it says is held to these. Records are of `path` itself.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as problem:
        raise Fault("unreadable-file", f"`{file}` cannot be opened: {problem.strerror}") from None
    try:
        return _within_folder(file, _Archive(descriptor, path, file, at, nbytes).records())
    except (struct.error, UnicodeDecodeError):
        raise _bad(file, "its directory is damaged") from None
    finally:
        os.close(descriptor)


class _Archive:
    def __init__(self, descriptor: int, path: str, file: str, begin: int, nbytes: int | None) -> None:
        self.descriptor, self.path, self.file, self.begin = descriptor, path, file, begin
        self.size = os.fstat(descriptor).st_size - begin if nbytes is None else nbytes
        self.again = (
            f"save it again: python -c \"import torch; p = '{path}'; torch.save(torch.load(p, weights_only=True), p)\""
            if nbytes is None else "unpack the archive, save this file in it again with torch.save, and name the folder"
        )  # fmt: skip

    def read(self, at: int, nbytes: int) -> bytes:
        if at < 0 or at + nbytes > self.size:
            raise Fault("truncated-file", f"`{self.file}` ends before byte {at + nbytes:,}, which its directory says it has")
        return bytes(read_descriptor(self.descriptor, self.path, self.begin + at, nbytes))

    def records(self) -> list[Record]:
        """All records in the order of the file, none overlapping another."""
        directory_at, directory_bytes, count = self.directory()
        raw = self.read(directory_at, directory_bytes)
        found: list[Record] = []
        at = 0
        for _ in range(count):
            record, at = self.record(raw, at, directory_at)
            found.append(record)
        if at != len(raw):
            raise _bad(self.file, "its directory is longer than its records")
        found.sort(key=lambda record: record.header_at)
        for record, following in pairwise(found):
            if record.at + record.nbytes > following.header_at:
                raise _bad(self.file, f"records `{record.name}` and `{following.name}` overlap")
        return found

    def directory(self) -> tuple[int, int, int]:
        """Offset, bytes and number of entries of the central directory."""
        start = self.read(0, min(self.size, len(LEGACY)))
        if start == LEGACY:
            raise Fault(
                "legacy-torch-file",
                f"`{self.file}` is in torch's old format (before 1.6), which cannot be read without unpickling",
                help=self.again,
            )
        if not start.startswith(b"PK\3\4"):
            raise _bad(self.file, "it does not begin as one")
        tail_at = max(0, self.size - 65535 - END.size)
        tail = self.read(tail_at, self.size - tail_at)
        end = tail.rfind(b"PK\5\6")
        if end < 0 or len(tail) - end < END.size:
            raise _bad(self.file, "its end is missing, as after an interrupted copy")
        _, disk, first, here, count, nbytes, at, comment = END.unpack_from(tail, end)
        end_at = tail_at + end
        if end_at + END.size + comment != self.size:
            raise _bad(self.file, "something follows its end")
        if end >= LOCATOR.size and tail[end - LOCATOR.size :].startswith(b"PK\6\7"):
            end_at = LOCATOR.unpack_from(tail, end - LOCATOR.size)[2]
            mark, _, _, _, disk, first, here, count, nbytes, at = END64.unpack(self.read(end_at, END64.size))
            if mark != b"PK\6\6":
                raise _bad(self.file, "its zip64 end is missing")
        if disk or first or here != count or nbytes > DIRECTORY_BYTES or at + nbytes > end_at:
            raise _bad(self.file, "its directory does not lie within it")
        return at, nbytes, count

    def record(self, raw: bytes, at: int, directory_at: int) -> tuple[Record, int]:
        """The entry of the directory at `at`, checked against its local header, and where the next entry begins."""
        fields = CENTRAL.unpack_from(raw, at)
        mark, flags, method = fields[0], fields[3], fields[4]
        packed, nbytes, name_bytes, extra_bytes, comment_bytes, header_at = *fields[8:13], fields[16]
        name_at = at + CENTRAL.size
        next_at = name_at + name_bytes + extra_bytes + comment_bytes
        if mark != b"PK\1\2" or next_at > len(raw):
            raise _bad(self.file, "its directory is damaged")
        raw_name = raw[name_at : name_at + name_bytes]
        name = raw_name.decode()
        extra = raw[name_at + name_bytes : name_at + name_bytes + extra_bytes]
        nbytes, packed, header_at = _widen(self.file, extra, [nbytes, packed, header_at])
        self.refuse_packed(name, flags, method)
        if packed != nbytes or header_at + LOCAL.size > directory_at:
            raise _bad(self.file, f"record `{name}` does not lie within it")
        local = LOCAL.unpack(self.read(header_at, LOCAL.size))
        self.refuse_packed(name, local[2], local[3])
        payload_at = header_at + LOCAL.size + local[9] + local[10]
        sizes_agree = all(size in (nbytes, 0xFFFFFFFF) for size in local[7:9]) or local[2] & 8
        if local[0] != b"PK\3\4" or local[9] != name_bytes or not sizes_agree or payload_at + nbytes > directory_at:
            raise _bad(self.file, f"record `{name}` does not lie where the directory says")
        if self.read(header_at + LOCAL.size, name_bytes) != raw_name:
            raise _bad(self.file, f"record `{name}` has another name at its data")
        return Record(name, self.begin + header_at, self.begin + payload_at, nbytes), next_at

    def refuse_packed(self, name: str, flags: int, method: int) -> None:
        if flags & 0x2041:
            raise _bad(self.file, f"record `{name}` is encrypted")
        if method != 0:
            raise Fault(
                "compressed-record",
                f"record `{name}` of `{self.file}` is compressed; tensors are read where they lie, uncompressed",
                help=self.again,
            )


def _widen(file: str, extra: bytes, values: list[int]) -> list[int]:
    """Sizes and offset that do not fit 32 bits stand in the zip64 extra field, in this order."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            field = extra[at + 4 : at + 4 + length]
            wide = iter([int.from_bytes(field[i : i + 8], "little") for i in range(0, len(field) - 7, 8)])
            values = [next(wide, value) if value == 0xFFFFFFFF else value for value in values]
        at += 4 + length
    return values


def _within_folder(file: str, records: list[Record]) -> dict[str, Record]:
    """Records by name within the one top folder that such an archive has."""
    folder = records[0].name.partition("/")[0] + "/" if records else "/"
    found: dict[str, Record] = {}
    for record in records:
        name = record.name.removeprefix(folder)
        if not record.name.startswith(folder) or not name:
            raise _bad(file, f"record `{record.name}` is not in folder `{folder}`")
        if name in found:
            raise _bad(file, f"record `{record.name}` occurs twice")
        found[name] = record
    if "data.pkl" not in found:
        raise _bad(file, "it has no record `data.pkl`")
    if "constants.pkl" in found:
        raise Fault(
            "torchscript-file",
            f"`{file}` is a TorchScript program, not a file of tensors",
            help="save its weights: torch.save(torch.jit.load(path).state_dict(), new_path)",
        )
    return found


def _bad(file: str, reason: str) -> Fault:
    return Fault("bad-torch-zip", f"`{file}` is not a whole torch file: {reason}")
