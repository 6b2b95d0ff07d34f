"""Tar archives unpacked the same by every Python 3.11, whose first releases have no extraction filters."""

from __future__ import annotations

import tarfile
from pathlib import Path


def unpack(archive: Path, folder: Path) -> Path:
    with tarfile.open(archive) as tar:
        for member in tar:
            place = folder / member.name
            place.parent.mkdir(parents=True, exist_ok=True)
            if member.isfile():
                content = tar.extractfile(member)
                assert content is not None
                place.write_bytes(content.read())
    return folder
