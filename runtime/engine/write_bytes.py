"""Bytes that are known beforehand, or a stretch of another file, into a target file."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..fault import Fault
from ..files.file_layout import Put
from ..files.window import SideFile
from ..inside import place

CHUNK = 1 << 20


def put(root: str, what: Put) -> None:
    """Writes `what` to its file below the folder `root`, which is made if it is not there."""
    path = place(root, what.file)
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        with open(number, "wb") as file:
            file.seek(what.at)
            if isinstance(what.content, bytes):
                file.write(what.content)
                return
            _copy(what.content, file.write)
    except OSError as error:
        raise Fault("write-failed", f"{path}: {error.strerror}") from error


def _copy(side_file: SideFile, write: Callable[[bytes], object]) -> None:
    try:
        source = open(side_file.path, "rb")  # noqa: SIM115
    except OSError as error:
        raise Fault("read-failed", f"{side_file.path}: {error.strerror}") from error
    with source:
        source.seek(side_file.at)
        left = side_file.nbytes
        while left:
            data = source.read(min(left, CHUNK))
            if not data:
                raise Fault("truncated-file", f"{side_file.path} ended before `{side_file.name}` was whole")
            write(data)
            left -= len(data)
