"""A gzip file in, a temporary file of what it holds out, which is removed when nobody holds it or the process ends."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
import zlib
from dataclasses import dataclass
from typing import BinaryIO

from ...fault import Fault

GZIP = b"\x1f\x8b"
CHUNK = 1 << 20
KEPT_FREE = 256 << 20  # bytes of the disk that are left to others


@dataclass(frozen=True, eq=False)
class Spool:
    path: str
    nbytes: int

    @property
    def folder(self) -> str:
        return os.path.dirname(self.path)


def decompress(path: str) -> Spool:
    """The content of the gzip file at `path`, in a temporary file (TMPDIR says where)."""
    try:
        number, place = tempfile.mkstemp(prefix="ckptc-", suffix=".tar")
    except OSError as problem:
        raise Fault("write-failed", f"no temporary file can be made: {problem.strerror}", help="set TMPDIR to a folder on a disk") from None
    try:
        with open(path, "rb") as source, open(number, "wb") as target:
            done = _inflate(path, source, target, place)
    except OSError as problem:
        os.unlink(place)
        raise Fault("write-failed", f"`{path}` cannot be decompressed to {place}: {problem.strerror}") from None
    except BaseException:
        os.unlink(place)
        raise
    spool = Spool(place, done)
    weakref.finalize(spool, _remove, place, os.getpid())
    return spool


def _inflate(path: str, source: BinaryIO, target: BinaryIO, place: str) -> int:
    """Decompresses members one after the other, as gzip does, and checks for room while it goes; the bytes written."""
    done = since = 0
    _refuse_small(path, place, os.fstat(source.fileno()).st_size)
    machine = zlib.decompressobj(31)
    raw = source.read(CHUNK)
    try:
        while True:
            if machine.eof:
                raw = machine.unused_data or source.read(CHUNK)
                if not raw.strip(b"\0"):
                    break  # zeros may fill the last block
                machine = zlib.decompressobj(31)
            data = machine.decompress(raw, CHUNK)
            if not raw and not data and not machine.eof:
                raise Fault("truncated-file", f"`{path}` ends within its compressed data, as after an interrupted copy", help="copy it again")
            raw = machine.unconsumed_tail or (b"" if machine.eof else source.read(CHUNK))
            target.write(data)
            done, since = done + len(data), since + len(data)
            if since >= 64 * CHUNK:
                since = 0
                _refuse_small(path, place, 0)
    except zlib.error:
        raise Fault("bad-archive", f"`{path}` is compressed, and damaged", help="copy it again") from None
    return done


def _refuse_small(path: str, place: str, need: int) -> None:
    folder = os.path.dirname(place)
    if shutil.disk_usage(folder).free < need + KEPT_FREE:
        raise Fault(
            "disk-full", f"`{path}` is compressed, and {folder} has too little room to decompress it",
            help="set TMPDIR to a folder with more room, or decompress it yourself: gunzip -c FILE.nemo > NEW.nemo",
        )  # fmt: skip


def _remove(place: str, process: int) -> None:
    """A child process that was forked does not remove its parent's file."""
    if os.getpid() == process and os.path.exists(place):
        os.unlink(place)
