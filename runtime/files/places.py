"""Where a checkpoint's files are: in a folder, or in an archive, whose members are read where they lie."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from ..fault import Fault


class Member(Protocol):
    """A file of an archive: `nbytes` bytes from `at`."""

    @property
    def name(self) -> str: ...
    @property
    def at(self) -> int: ...
    @property
    def nbytes(self) -> int: ...


@dataclass(frozen=True)
class Archive:
    """An opened archive. The members lie in the file at `path`: the archive itself, or what it was decompressed to, which
    exists as long as `held` is held."""

    path: str
    members: Mapping[str, Member]
    notes: tuple[str, ...] = ()
    held: object = field(default=None, repr=False, compare=False)


class Files(Protocol):
    """A folder or an archive: the names of its files, and where one's bytes are."""

    def has(self, name: str) -> bool: ...
    def ends(self, folder: str, suffix: str) -> bool:
        """Whether a file directly in `folder` has this suffix."""
        ...

    def names(self, folder: str) -> Iterable[str]: ...
    def place(self, name: str) -> tuple[str, int, int]: ...


class Folder:
    """The files in and below `root`."""

    def __init__(self, root: str) -> None:
        self.root = root

    def has(self, name: str) -> bool:
        return os.path.isfile(os.path.join(self.root, name))

    def ends(self, folder: str, suffix: str) -> bool:
        try:
            return any(name.endswith(suffix) for name in os.listdir(os.path.join(self.root, folder)))
        except OSError:
            return False

    def names(self, folder: str) -> Iterable[str]:
        start = os.path.join(self.root, folder)
        for inner, _, files in os.walk(start):
            for name in files:
                yield os.path.relpath(os.path.join(inner, name), start).replace(os.sep, "/")

    def place(self, name: str) -> tuple[str, int, int]:
        path = os.path.join(self.root, *name.split("/"))
        return path, 0, os.stat(path).st_size


class Members:
    """The members of an archive."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive

    def has(self, name: str) -> bool:
        return name in self.archive.members

    def ends(self, folder: str, suffix: str) -> bool:
        return any(name.endswith(suffix) and "/" not in name for name in self.names(folder))

    def names(self, folder: str) -> Iterable[str]:
        return (name.removeprefix(folder) for name in self.archive.members if name.startswith(folder))

    def place(self, name: str) -> tuple[str, int, int]:
        member = self.archive.members[name]
        return self.archive.path, member.at, member.nbytes


@dataclass(frozen=True)
class Place:
    """A path that a user named, and the archive that it is, if it is one."""

    path: str
    archive: Archive | None = None

    @property
    def is_folder(self) -> bool:
        return os.path.isdir(self.path)

    @property
    def is_file(self) -> bool:
        """Whether it is a file of tensors, not an archive."""
        return self.archive is None and os.path.isfile(self.path)

    @property
    def files(self) -> Folder | Members:
        """All the files in it."""
        return Folder(self.path) if self.archive is None else Members(self.archive)

    def names(self) -> list[str]:
        """What is directly in the folder, without what is hidden. Raises `Fault` if it cannot be listed."""
        try:
            return sorted(name for name in os.listdir(self.path) if not is_hidden(name))
        except OSError as problem:
            raise Fault("unreadable-file", f"`{self.path}` cannot be listed: {problem.strerror}") from None


def is_hidden(name: str) -> bool:
    """Whether a file is a dotfile, or is still being written."""
    return name.startswith(".") or name.endswith(".partial")
