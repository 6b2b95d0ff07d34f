"""Data that is dear to make, kept between runs in the user's cache folder, as JSON that is held to its checksums.

Each file has one name and one key: what it was made of, and the sources that made it. A file that is not of that key, or
damaged, or in a folder or of an owner that others may be, is as none; then the data are made again.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

OFF = "CKPTC_NO_CACHE"
_HOME = Path(__file__).resolve().parent.parent
# What the kept data are made by, from the folder of the package: a change in any of these files makes all anew.
_MAKERS = ("dsl", "dsl/parsing", "compiler/link", "compiler/values", "library")
Parts = Sequence[bytes]


def key_of(*made_of: str) -> str:
    """The key of what is made of these texts, by the sources as they are."""
    sources = [
        (folder, entry.name, (found := entry.stat()).st_size, found.st_mtime_ns)
        for folder in _MAKERS
        for entry in sorted(os.scandir(_HOME / folder), key=lambda entry: entry.name)
        if entry.is_file()
    ]
    return sha256(repr((made_of, sources)).encode()).hexdigest()


def recall(name: str, key: str) -> list[Part] | None:
    """The parts that were kept under this name and key; each is read when it is asked for."""
    try:
        place = _place(name)
        if place is None:
            return None
        handle = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(handle, "rb") as file:
            if not _own(os.fstat(handle)):
                return None
            held, sums, *parts = file.read().split(b"\n")
        if held.decode() != key or not parts or _sum(sums) != parts.pop().decode():
            return None
        return [Part(text, digest) for text, digest in zip(parts, json.loads(sums), strict=True)]
    except (OSError, ValueError, TypeError, RecursionError):
        return None


class Part:
    """One part of a file."""

    def __init__(self, text: bytes, digest: str) -> None:
        self.text, self.digest = text, digest

    def data(self) -> Any:
        """Raises `ValueError` where it is damaged."""
        if _sum(self.text) != self.digest:
            raise ValueError("damaged")
        try:
            return json.loads(self.text)
        except RecursionError:
            raise ValueError("too deep") from None


def keep(name: str, key: str, parts: Sequence[Any]) -> None:
    """Keeps data as parts of one file, which is replaced at once. Where it cannot be written, nothing is kept."""
    partial = ""
    try:
        place = _place(name)
        if place is None:
            return
        import tempfile

        texts = [json.dumps(part, separators=(",", ":")).encode() for part in parts]
        sums = json.dumps([_sum(text) for text in texts]).encode()
        handle, partial = tempfile.mkstemp(dir=place.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(b"\n".join([key.encode(), sums, *texts, _sum(sums).encode()]))
        os.replace(partial, place)
    except (OSError, ValueError):
        if partial and os.path.exists(partial):
            os.unlink(partial)


def _sum(text: bytes) -> str:
    return sha256(text).hexdigest()


def _place(name: str) -> Path | None:
    """The file of a name, of this installation alone, in a folder that is the user's own. None where there is no such folder:
    nothing is kept then."""
    if os.environ.get(OFF):
        return None
    caches = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(caches):
        home = os.environ["HOME"] if "HOME" in os.environ else os.path.expanduser("~")
        if not os.path.isabs(home) or not os.path.isdir(home):  # there is none
            return None
        caches = os.path.join(home, ".cache")
    folder = Path(caches) / "ckptc"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _own(os.stat(folder)):
        return None
    return folder / f"{_sum(repr((str(_HOME), name)).encode())[:24]}.json"


def _own(found: os.stat_result) -> bool:
    """Whether it is the user's, and nobody else may write it."""
    return found.st_uid == os.getuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
