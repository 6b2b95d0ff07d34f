"""A path in; a `Checkpoint` out: its tensors and where each lies, from headers alone, and its side files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .beside import beside
from .distributed import around, read_distributed
from .fault import Fault
from .find_files import Found, find
from .nemo_archive import CONFIG, plain_name, unwrap
from .path_names import refuse_remote_source
from .read_window import read_at, read_window
from .safetensors_file import read_safetensors
from .situations import refuse_place
from .stacked import DISTRIBUTED
from .tags import choose_tag
from .torch_dist import COMMON
from .torch_file import read_torch_file
from .training_run import (
    MADE_BY,
    NEURON_NAME,
    RUN_SUFFIX,
    SETTINGS,
    called_as_in_archives,
    holds_settings,
    read_settings,
)
from .window import Entry, SideFile, at_index
from .xser import read_references

if TYPE_CHECKING:
    import torch


_MIXED = "the index and the files are of two checkpoints: download or copy both again, or remove the index to take the files as they are"
# What is said of files that are not what they are called.
_UNREADABLE = ("bad-safetensors", "bad-torch-zip", "truncated-file", "bad-metadata", "bad-pickle", "unsafe-pickle")


@dataclass(frozen=True)
class Tensor:
    """A tensor of a checkpoint that is read when asked."""

    entry: Entry
    _held: object = field(default=None, repr=False, compare=False)  # keeps the file that it lies in

    @property
    def file(self) -> str:
        return self.entry.file

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def dtype(self) -> str:
        return self.entry.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.entry.shape

    def read(self) -> torch.Tensor:
        """The elements, contiguous, on the CPU."""
        return read_window(self.entry.window)

    def at(self, *index: int) -> Tensor:
        """The part at `index` of the first axes, as of one layer of a stacked tensor; nothing else is read for it."""
        if len(index) > len(self.shape) or not all(0 <= i < extent for i, extent in zip(index, self.shape, strict=False)):
            raise Fault("no-such-index", f"`{self.name}` has the shape {list(self.shape)}, and no part at {list(index)}")
        return replace(self, entry=replace(self.entry, window=at_index(self.entry.window, index)))


@dataclass(frozen=True)
class Checkpoint:
    """`format` is the container as found: safetensors, bin, pt, xser, nemo, torch_dist or zarr. `others` are (file, key) of what is no tensor.

    `tag` is the folder in `path` that is the checkpoint, where a training run keeps several. `held` is the
    archive that `path` is, if it is one: it keeps what it was decompressed to, and `notes` say so. `bare` are the files
    that hold no tensor.
    """

    path: str
    format: str
    entries: tuple[Entry, ...]
    beside: tuple[SideFile, ...]
    others: tuple[tuple[str, str], ...] = ()
    tag: str = ""
    notes: tuple[str, ...] = ()
    held: object = field(default=None, repr=False, compare=False)
    bare: tuple[str, ...] = ()

    @property
    def side_files(self) -> tuple[str, ...]:
        """The names of the files beside the tensors."""
        return tuple(each.name for each in self.beside)

    @property
    def archive(self) -> bool:
        """Whether `path` is a .nemo archive."""
        return self.held is not None

    def __iter__(self) -> Iterator[Tensor]:
        return (Tensor(entry, self.held) for entry in self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, name: str) -> Tensor:
        """The tensor called `name`; where several files have one, `by_file` tells them apart."""
        found = self._by_name.get(name, ())
        if not found:
            raise Fault("missing-tensor", f"`{self.path}` has no tensor `{name}`")
        if len(found) > 1:
            files = tuple(entry.file for entry in found[:6])
            raise Fault("several-tensors", f"`{self.path}` has `{name}` in {len(found)} files", notes=files)
        return Tensor(found[0], self.held)

    def by_file(self, file: str, name: str) -> Tensor:
        """The tensor called `name` in `file`."""
        for entry in self._by_name.get(name, ()):
            if entry.file == file:
                return Tensor(entry, self.held)
        raise Fault("missing-tensor", f"`{file}` of `{self.path}` has no tensor `{name}`")

    def config(self, name: str) -> dict[str, Any] | None:
        """The content of the JSON or YAML file `name` beside the tensors, or None if there is none."""
        place = os.path.join(self.path, name)
        try:
            if self.held is not None:
                if name not in self.side_files:
                    return None
                text = self.artifact(name).decode()
            else:
                folder = self.path if os.path.isdir(self.path) else os.path.dirname(self.path)
                place = os.path.join(folder, self.tag, name)
                if not os.path.isfile(place):
                    return self.settings() if name == CONFIG else None
                with open(place, encoding="utf-8") as stream:
                    text = stream.read()
            content = _yaml(text) if name.endswith((".yaml", ".yml")) else json.loads(text)
        except (OSError, ValueError, RecursionError) as problem:
            raise Fault("bad-config", f"`{place}` cannot be read ({type(problem).__name__})") from None
        if not isinstance(content, dict):
            raise Fault("bad-config", f"`{place}` holds no mapping of keys to values")
        return unwrap(content) if name == CONFIG else content

    def settings(self) -> dict[str, Any] | None:
        """The model's settings that the tensors' own files hold, as those of a training run with NeMo do."""
        file = self.settings_file
        return read_settings(file, file) if file else None

    @property
    def settings_file(self) -> str:
        """The first of the tensors' files, or what a distributed checkpoint has beside them, if it holds settings."""
        if self.format in DISTRIBUTED and not self.archive:
            common = os.path.join(self.path, self.tag, COMMON)
            return common if os.path.isfile(common) and holds_settings(common) else ""
        held = {key for _, key in self.others}
        plain = self.format == "pt" and self.entries and {SETTINGS, MADE_BY} <= held
        return self.entries[0].window.path if plain else ""

    def artifacts(self) -> tuple[str, ...]:
        """The names of the files beside the tensors, without the configs of archives."""
        return tuple(name for name in self.side_files if name != CONFIG)

    def artifact(self, name: str) -> bytes:
        """The bytes of the file called `name`: as it is, as a config refers to it (`nemo:name`), or without its number."""
        asked = name.removeprefix("nemo:")
        found = [each for each in self.beside if each.name == asked] or [each for each in self.beside if plain_name(each.name) == asked]
        if not found:
            raise Fault("missing-file", f"`{self.path}` holds no file `{asked}` beside its tensors", notes=self.side_files[:6])
        if len(found) > 1:
            raise Fault("several-files", f"`{self.path}` holds {len(found)} files `{asked}`", notes=tuple(each.name for each in found[:6]))
        return bytes(read_at(found[0].path, found[0].at, found[0].nbytes))

    @cached_property
    def _by_name(self) -> Mapping[str, tuple[Entry, ...]]:
        found: dict[str, tuple[Entry, ...]] = {}
        for entry in self.entries:
            found[entry.name] = (*found.get(entry.name, ()), entry)
        return found


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint at `path`: a file, or a folder of shards or rank files. Reads headers only.

    Raises `Fault`, which says what is there instead where that is known.
    """
    if not os.path.lexists(path):
        refuse_remote_source(path)
    place = around(os.fspath(path))
    tag = choose_tag(place)
    inner = os.path.join(place, tag) if tag else place
    try:
        found = find(inner)
    except Fault:
        refuse_place(inner)
        raise
    try:
        return _read(place, tag, found)
    except Fault as fault:
        if fault.code not in _UNREADABLE:
            raise
        held = found.archive
        refuse_place(held.path if held else inner, [(m.name, m.at, m.nbytes) for m in held.members.values()] if held else [])
        raise


def _read(place: str, tag: str, found: Found) -> Checkpoint:
    """The checkpoint in the files that were found."""
    entries: list[Entry] = []
    others: list[tuple[str, str]] = []
    container = found.container
    if found.distributed is not None:
        held = read_distributed(found.source, container, found.distributed)
        entries = held.entries
        others = [(found.distributed, key) for key in held.others]
    for file in found.files:
        at, begin, nbytes = found.place(file)
        if found.container == "safetensors":
            inside = list(read_safetensors(at, file).entries)
        else:
            content = read_torch_file(at, file, begin, nbytes)
            inside = content.entries
            others += [(file, key) for key in content.others]
            if content.references:
                container = "xser"
                inside += read_references(at, file, content.references)
        if found.index:
            _compare(place, file, found.index[file], inside)
        entries += inside
    holding = {entry.file for entry in entries}
    bare = [file for file in found.files if file not in holding] if found.distributed is None else []
    if container == "pt" and found.container == "pt" and _of_training(found, others):
        entries = [replace(entry, file=called_as_in_archives(entry.file)) for entry in entries]
        bare = [called_as_in_archives(file) for file in bare]
    if not entries:
        raise Fault("no-tensors", f"`{place}` holds no tensors", notes=tuple(f"looked in {f}" for f in found.files[:6]))
    if found.flat:
        _refuse_twice(place, entries)
    notes = found.archive.notes if found.archive else ()
    return Checkpoint(place, container, tuple(entries), beside(found), tuple(others), tag, notes, found.archive, tuple(bare))


def _of_training(found: Found, others: list[tuple[str, str]]) -> bool:
    """Whether all files are what a training run with Lightning saved, under a name that the run chose."""
    made = {file for file, key in others if key == MADE_BY}
    return made.issuperset(found.files) and all(f.endswith(RUN_SUFFIX) and not f.endswith(NEURON_NAME) for f in found.files)


def _compare(path: str, file: str, expected: frozenset[str], held: list[Entry]) -> None:
    """The index and its file list the same tensors."""
    names = {entry.name for entry in held}
    absent, unlisted = sorted(expected - names), sorted(names - expected)
    if absent:
        title = f"the index of `{path}` places `{absent[0]}` in `{file}`, which does not have it"
        raise Fault("index-mismatch", title, notes=tuple(absent[1:6]), help=_MIXED)
    if unlisted:
        title = f"`{file}` of `{path}` has `{unlisted[0]}`, which the index does not place there"
        raise Fault("index-mismatch", title, notes=tuple(unlisted[1:6]), help=_MIXED)


def _refuse_twice(path: str, entries: list[Entry]) -> None:
    file_of: dict[str, str] = {}
    for entry in entries:
        first = file_of.setdefault(entry.name, entry.file)
        if first != entry.file:
            raise Fault("duplicate-tensor", f"`{entry.name}` of `{path}` is in `{first}` and in `{entry.file}`")


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError("not YAML") from None
