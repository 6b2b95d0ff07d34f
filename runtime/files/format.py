"""What a format is: how its files are found, read and laid out. `formats/registry.py` lists the formats there are.

Reading goes `find` (a `Place` in, `Found` out), then `read` (`Contents` out: names and windows, from headers alone).
Writing is `lay_out`: `Tensors` in, `LaidOut` out. It says which files there are and where each tensor's bytes go in them,
and the engine fills them. So a format never moves the bytes of a tensor.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from .file_layout import Put, TargetFile
from .places import Archive, Folder, Members, Place
from .window import Entry, SideFile


@dataclass(frozen=True)
class Found:
    """The files of a checkpoint. `files` are relative to `root`, with `/`; in an `archive`, they are its members.

    `format` is the name of the format that found them and reads them. `index` says which tensors each file must hold.
    `flat`: no two files may hold tensors of one name. `one`: a file was named, not a folder. `folder` ("" or ending in `/`)
    holds the tensors of a format that lists no files; `own` are globs of further files, relative to `root`, that belong to
    the format, and `with_folders` are folders whose files stand beside the tensors.
    """

    root: str
    format: str
    files: tuple[str, ...]
    flat: bool
    index: Mapping[str, frozenset[str]] = field(default_factory=dict)
    one: bool = False
    archive: Archive | None = None
    folder: str | None = None
    own: tuple[str, ...] = ()
    with_folders: tuple[str, ...] = ()

    def place(self, file: str) -> tuple[str, int, int | None]:
        """Where a file's bytes are: the path, the first byte, and how many if they are not all that follow."""
        if self.archive is not None:
            member = self.archive.members[file]
            return self.archive.path, member.at, member.nbytes
        return os.path.join(self.root, *file.split("/")), 0, None

    @property
    def source(self) -> Folder | Members:
        """All the files that there are."""
        return Place(self.root, self.archive).files


@dataclass(frozen=True)
class Contents:
    """What the files of a checkpoint hold. `others` are (file, key) of what is no tensor, `bare` are files without tensors.
    `format` is the one that the files turned out to be of. `metadata` are texts that a file has beside its tensors, by file."""

    format: str
    entries: Sequence[Entry]
    others: Sequence[tuple[str, str]] = ()
    bare: Sequence[str] = ()
    metadata: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Tensors:
    """What is to be written, in parallel lists: names, dtypes, shapes, and the file or folder that the layout puts each in
    ("" leaves the choice to the format). `order` lists their numbers in the order of writing.

    `layout` is the name of the layout, `params` are its parameters. `trees` are the values that stand around a file's
    tensors, by file. `objects` and `bare` are those of `plan.Side`. `copies` says of each tensor whether it is a further copy
    of one that other ranks write; `cut` says whether ranks that share what they do not cut, cut it. `metadata` are texts
    that the source's files had beside their tensors, for files that have a place for them.
    """

    layout: str
    names: Sequence[str]
    dtypes: Sequence[str]
    shapes: Sequence[tuple[int, ...]]
    places: Sequence[str]
    order: Sequence[int]
    max_shard_bytes: int
    params: Mapping[str, Any]
    trees: Mapping[str, Any]
    objects: Sequence[tuple[str, tuple[tuple[str, int, int], ...]]]
    bare: Sequence[str]
    copies: Callable[[], Sequence[bool]]
    cut: Callable[[], Sequence[bool]]
    metadata: Mapping[str, str] = field(default_factory=dict)

    def described(self, i: int) -> tuple[str, str, tuple[int, ...]]:
        """Name, dtype and shape of a tensor."""
        return self.names[i], self.dtypes[i], self.shapes[i]


@dataclass(frozen=True)
class LaidOut:
    """The files of tensors; (file, region) of each tensor, where file is -1 for a copy that is left out; whole texts."""

    files: tuple[TargetFile, ...]
    spots: Sequence[tuple[int, int]]
    texts: tuple[tuple[str, bytes], ...]


class Held(Protocol):
    """What a format is asked about: an opened checkpoint."""

    @property
    def path(self) -> str: ...
    @property
    def tag(self) -> str: ...
    @property
    def format(self) -> str: ...
    @property
    def entries(self) -> tuple[Entry, ...]: ...
    @property
    def others(self) -> tuple[tuple[str, str], ...]: ...
    @property
    def archive(self) -> bool: ...


@dataclass(frozen=True)
class Format:
    """A format of checkpoint files, by its `name` in mappings. One that is only written has no `find` and no `read`.

    `suffixes` are the endings of its files of tensors. `in_folder`: the tensors lie in a folder, whose files have no names in
    mappings, and parts of bracketed names (`layers[3].w`) are stored as one tensor. `names_files`: its files have usual names
    where a layout gives none. `settings_file` names the file among the tensors' own that holds the settings of a training
    run, or "". `has_metadata`: its files have a place for texts beside their tensors.
    """

    name: str
    lay_out: Callable[[Tensors], LaidOut]
    find: Callable[[Place], Found | None] | None = None
    read: Callable[[Found], Contents] | None = None
    suffixes: tuple[str, ...] = ()
    in_folder: bool = False
    names_files: bool = True
    settings_file: Callable[[Held], str] | None = None
    has_metadata: bool = False


@dataclass(frozen=True)
class ArchiveKind:
    """A kind of file that holds all files of a checkpoint.

    `holds` says whether files in a format (its name, the names of the files) are what such an archive holds, so that an
    archive of them can be written. `pack` gives each file its place in the archive called by the first argument. `config` is the config
    that it holds, `unwrap` takes the model's own settings out of it, and `settings` reads those that a training run keeps
    among its tensors. `plain_name` is the name of a side file without what the archive puts before it.
    """

    suffix: str
    config: str
    open: Callable[[str], Archive]
    holds: Callable[[str, Sequence[str]], bool]
    holds_beside: Callable[[str, Container[str]], bool]
    pack: Callable[[str, Sequence[TargetFile], Sequence[tuple[str, bytes | SideFile]]], tuple[list[TargetFile], list[Put]]]
    unwrap: Callable[[dict[str, Any]], dict[str, Any]]
    settings: Callable[[str], dict[str, Any] | None]
    plain_name: Callable[[str], str]
