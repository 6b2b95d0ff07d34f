"""A path in; a `Checkpoint` out: its tensors and where each lies, from headers alone, and its side files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .fault import Fault
from .find_files import CONTAINER_OF, Found, find, is_hidden
from .read_window import read_window
from .safetensors_file import read_safetensors
from .tags import choose_tag
from .torch_file import read_torch_file
from .window import Entry
from .xser import read_references

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Tensor:
    """A tensor of a checkpoint that is read when asked."""

    entry: Entry

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


@dataclass(frozen=True)
class Checkpoint:
    """`format` is the container as found: safetensors, bin, pt or xser. `others` are (file, key) of what is no tensor.

    `tag` is the folder in `path` that is the checkpoint, where a training run keeps several.
    """

    path: str
    format: str
    entries: tuple[Entry, ...]
    side_files: tuple[str, ...]
    others: tuple[tuple[str, str], ...] = ()
    tag: str = ""

    def __iter__(self) -> Iterator[Tensor]:
        return map(Tensor, self.entries)

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
        return Tensor(found[0])

    def by_file(self, file: str, name: str) -> Tensor:
        """The tensor called `name` in `file`."""
        for entry in self._by_name.get(name, ()):
            if entry.file == file:
                return Tensor(entry)
        raise Fault("missing-tensor", f"`{file}` of `{self.path}` has no tensor `{name}`")

    def config(self, name: str) -> dict[str, Any] | None:
        """The content of the JSON or YAML file `name` beside the tensors, or None if there is none."""
        folder = self.path if os.path.isdir(self.path) else os.path.dirname(self.path)
        place = os.path.join(folder, self.tag, name)
        if not os.path.isfile(place):
            return None
        try:
            with open(place, encoding="utf-8") as stream:
                content = _yaml(stream.read()) if name.endswith((".yaml", ".yml")) else json.load(stream)
        except (OSError, ValueError, RecursionError) as problem:
            raise Fault("bad-config", f"`{place}` cannot be read ({type(problem).__name__})") from None
        if not isinstance(content, dict):
            raise Fault("bad-config", f"`{place}` holds no mapping of keys to values")
        return content

    @cached_property
    def _by_name(self) -> Mapping[str, tuple[Entry, ...]]:
        found: dict[str, tuple[Entry, ...]] = {}
        for entry in self.entries:
            found[entry.name] = (*found.get(entry.name, ()), entry)
        return found


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The checkpoint at `path`: a file, or a folder of shards or rank files. Reads headers only."""
    place = os.fspath(path)
    tag = choose_tag(place)
    found = find(os.path.join(place, tag) if tag else place)
    entries: list[Entry] = []
    others: list[tuple[str, str]] = []
    container = found.container
    for file in found.files:
        at = os.path.join(found.root, *file.split("/"))
        if found.container == "safetensors":
            held = list(read_safetensors(at, file).entries)
        else:
            content = read_torch_file(at, file)
            held = content.entries
            others += [(file, key) for key in content.others]
            if content.references:
                container = "xser"
                held += read_references(at, file, content.references)
        if found.index:
            _compare(place, file, found.index[file], held)
        entries += held
    if not entries:
        raise Fault("no-tensors", f"`{place}` holds no tensors", notes=tuple(f"looked in {f}" for f in found.files[:6]))
    if found.flat:
        _refuse_twice(place, entries)
    return Checkpoint(place, container, tuple(entries), _side_files(found), tuple(others), tag)


def _compare(path: str, file: str, expected: frozenset[str], held: list[Entry]) -> None:
    """The index and its file list the same tensors."""
    names = {entry.name for entry in held}
    absent, unlisted = sorted(expected - names), sorted(names - expected)
    if absent:
        title = f"the index of `{path}` places `{absent[0]}` in `{file}`, which does not have it"
        raise Fault("index-mismatch", title, notes=tuple(absent[1:6]))
    if unlisted:
        title = f"`{file}` of `{path}` has `{unlisted[0]}`, which the index does not place there"
        raise Fault("index-mismatch", title, notes=tuple(unlisted[1:6]))


def _refuse_twice(path: str, entries: list[Entry]) -> None:
    file_of: dict[str, str] = {}
    for entry in entries:
        first = file_of.setdefault(entry.name, entry.file)
        if first != entry.file:
            raise Fault("duplicate-tensor", f"`{entry.name}` of `{path}` is in `{first}` and in `{entry.file}`")


def _side_files(found: Found) -> tuple[str, ...]:
    """Files directly in the folder that hold no weights and do not describe where weights are."""
    path = found.root
    if found.one:
        return ()
    return tuple(
        name
        for name in sorted(os.listdir(path))
        if not is_hidden(name)
        and name not in found.files
        and os.path.splitext(name)[1] not in CONTAINER_OF
        and not name.endswith(".index.json")
        and os.path.isfile(os.path.join(path, name))
    )


def _yaml(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError("not YAML") from None
