"""Paths in, what tells that a file is still the one that it was: its size, its time of change and its number on the disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ..fault import Fault


@dataclass(frozen=True)
class Stamp:
    """`modified` is in nanoseconds; `inode` changes where another file is put in its place."""

    size: int
    modified: int
    inode: int


Stamps: TypeAlias = Mapping[str, Stamp]


def stamp(path: str) -> Stamp:
    """What the file at `path` is now; links are followed. Raises `Fault` where there is none."""
    try:
        facts = os.stat(path)
    except OSError as error:
        raise Fault("missing-file", f"{path}: {error.strerror}", help="put it back, or copy the checkpoint again") from None
    return Stamp(facts.st_size, facts.st_mtime_ns, facts.st_ino)


def stamps_of(paths: Iterable[str]) -> dict[str, Stamp]:
    """The stamp of each path."""
    return {path: stamp(path) for path in dict.fromkeys(paths)}


def refuse_changed(stamps: Stamps) -> None:
    """Raises `source-changed` for a file that is no longer as its stamp says."""
    for path, was in stamps.items():
        try:
            now = stamp(path)
        except Fault:
            raise _changed(path, "it is gone") from None
        if now.size != was.size:
            raise _changed(path, f"it had {was.size:,} bytes and has {now.size:,}")
        if now.inode != was.inode:
            raise _changed(path, "another file stands in its place")
        if now.modified != was.modified:
            raise _changed(path, "it was written to")


def _changed(path: str, how: str) -> Fault:
    return Fault(
        "source-changed", f"{path} changed while it was read: {how}",
        help="run it again when nothing writes to the source any more",
    )  # fmt: skip
