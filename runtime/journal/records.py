"""The journal's file: a line for each record, each with a checksum of its own. What is read is held to it.

The first line says what the run is of. Others say which regions of which files are finished, that the source's copies were compared, and
that all is whole. A line is written only after the data that it speaks of is on the disk. A torn last line is what a crash leaves, and
is dropped; any other damage is refused.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from ..fault import Fault
from .fingerprint import Source

VERSION = 1
NAME = "journal"
Done: TypeAlias = dict[tuple[int, int], int]  # the CRC-32 of each finished region, by the numbers of its file and of itself


@dataclass(frozen=True)
class Head:
    """What a run is of."""

    plan: str
    sources: tuple[Source, ...]


@dataclass
class Known:
    """What a journal says: its head, what is finished, and how long the part of the file is that is sound."""

    head: Head
    done: Done = field(default_factory=dict)
    compared: bool = False
    whole: bool = False
    size: int = 0


def line(record: Any) -> bytes:
    text = json.dumps(record, separators=(",", ":")).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def begin(folder: str, head: Head) -> None:
    """Writes a journal that says what the run is of, and nothing else."""
    temporary = os.path.join(folder, NAME + ".new")
    with open(temporary, "wb") as file:
        file.write(line({"journal": VERSION, **asdict(head)}))
        file.flush()
        os.fsync(file.fileno())
    os.rename(temporary, os.path.join(folder, NAME))
    sync(folder)


def read(folder: str, regions: Sequence[int]) -> Known | None:
    """What the journal in `folder` says; None where there is none. `regions` is how many each file has."""
    path = os.path.join(folder, NAME)
    try:
        with open(path, "rb") as file:
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Fault("read-failed", f"{path}: {error.strerror}") from None
    records = [_record(each) for each in lines[:-1]]
    sound = next((i for i, each in enumerate(records) if each is None), len(records))
    if any(each is not None for each in records[sound:]) or not sound:
        raise _damaged(path)
    try:
        known = _known(records[0], sum(len(each) + 1 for each in lines[:sound]))
        for record in records[1:sound]:
            _take(known, record, regions)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        raise _damaged(path) from None
    return known


def _record(text: bytes) -> Any:
    """The record of a line, or None where the line is not whole."""
    checksum, _, body = text.partition(b" ")
    try:
        if int(checksum, 16) != zlib.crc32(body) or len(checksum) != 8:
            return None
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _known(record: Any, size: int) -> Known:
    if record["journal"] != VERSION:
        raise ValueError
    return Known(Head(record["plan"], tuple(Source(**each) for each in record["sources"])), size=size)


def _take(known: Known, record: Any, regions: Sequence[int]) -> None:
    known.compared |= record.get("compared") is True
    known.whole |= record.get("whole") is True
    for file, region, crc in record.get("done", ()):
        if not 0 <= file < len(regions) or not 0 <= region < regions[file] or not 0 <= crc < 1 << 32:
            raise ValueError
        known.done[file, region] = crc


def _damaged(path: str) -> Fault:
    return Fault("journal-damaged", f"{path} is damaged, and nothing can be resumed by it", help=f"start over: remove {os.path.dirname(path)}")


def sync(path: str) -> None:
    """Brings a file or a folder to the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
