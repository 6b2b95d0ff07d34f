"""A path in; a `Checkpoint` out: its tensors and where each lies, from headers alone, and its side files.

A checkpoint is a mapping of names to tensors that are read when asked: `name in it`, `it[name]`, `it.keys()`, `dict(it)`.
Rank files hold several tensors of one name, so iterating gives the tensors themselves, each with its `file` and `name`, in the
order of the files; `it[file, name]` is one of them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..fault import Fault
from ..files.format import Found
from ..files.read_window import read_at, read_window
from ..files.stamps import Stamps, refuse_changed, stamps_of
from ..files.window import Entry, SideFile, at_index, block_of, paths_of
from ..formats.distributed.find import around
from ..formats.registry import archive_kinds, format_named
from ..path_names import refuse_remote_source
from ..situations.situations import refuse_place
from ..yaml_tree import load_yaml
from .find_files import find
from .index import block_at
from .newest_tag import choose_tag
from .quantization import PART_ENDINGS, may_be_coded
from .side_files import beside

if TYPE_CHECKING:
    import torch


# What is said of files that are not what they are called.
_UNREADABLE = ("bad-safetensors", "bad-torch-zip", "truncated-file", "bad-metadata", "bad-pickle", "unsafe-pickle")
_CONFIG = "config.json"  # which says how weights are quantized
_MOST_NEAR = 20_000  # names among which a near one is looked for


@dataclass(frozen=True)
class Tensor:
    """A tensor of a checkpoint that is read when asked: whole by `read()`, in part by `tensor[3:5]`.

    `shape` is in elements; `dtype` is torch's name of the element type, without `torch.`.
    """

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

    def __getitem__(self, index: Any) -> torch.Tensor:
        """The elements at numbers, slices and `...`, as of a torch tensor; contiguous, on the CPU. No byte before the first of
        them or after the last is read: of whole rows, none but theirs. Raises `Fault`, an `IndexError`, where there are none."""
        first, shape, within = block_at(index, self.shape, self.name)
        return read_window(block_of(self.entry.window, first, shape))[within].contiguous()

    def __repr__(self) -> str:
        return f"<Tensor {self.name} {self.dtype} {list(self.shape)} in {self.file}>"

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
    that hold no tensor. `stamps` tell of the files whether they are still the ones whose headers were read. `metadata` are
    texts that a file has beside its tensors, by file. Tensors that are stored as codes and scales are among `entries` as what
    they mean; `undecoded` says why some could not be decoded, and `stored` are the tensors as the files have them, where these
    are others.
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
    stamps: Stamps = field(default_factory=dict, repr=False, compare=False)
    metadata: Mapping[str, Mapping[str, str]] = field(default_factory=dict, repr=False, compare=False)
    undecoded: tuple[str, ...] = ()
    stored: tuple[Entry, ...] = field(default=(), repr=False, compare=False)

    def for_names(self, names: Iterable[str]) -> Checkpoint:
        """The checkpoint for layouts that have these names: with codes and scales as they are stored, if some are names of scales."""
        if not self.stored or not any(name.endswith(PART_ENDINGS) for name in names):
            return self
        from .scaled import decode_entries

        said = decode_entries(self.stored, _settings(self)).notes
        return replace(self, entries=self.stored, undecoded=(), stored=(), notes=tuple(note for note in self.notes if note not in said))

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
        """How many tensors there are, in all files."""
        return len(self.entries)

    def __contains__(self, name: object) -> bool:
        """Whether there is a tensor called `name`, or one of that name in a file where it is `(file, name)`."""
        if isinstance(name, Tensor):
            return name.entry in self._by_name.get(name.name, ())
        if isinstance(name, tuple):
            return len(name) == 2 and any(entry.file == name[0] for entry in self._by_name.get(name[1], ()))
        return name in self._by_name

    def __repr__(self) -> str:
        files = len({entry.file for entry in self.entries})
        return f"<Checkpoint {self.path}: {self.format}, {len(self)} tensors in {files} file{'s' * (files != 1)}>"

    def keys(self) -> KeysView[str]:
        """The names of the tensors, each once."""
        return self._by_name.keys()

    def __getitem__(self, name: str | tuple[str, str]) -> Tensor:
        """The tensor called `name`; where several files have one, `(file, name)` tells them apart.

        Raises `Fault`, which is a `KeyError` where there is none."""
        if isinstance(name, tuple):
            return self.by_file(*name)
        found = self._by_name.get(name, ())
        if not found:
            from difflib import get_close_matches

            near = get_close_matches(name, self.keys(), 1, 0.8) if len(self.keys()) <= _MOST_NEAR else ()
            raise Fault("missing-tensor", f"`{self.path}` has no tensor `{name}`", help=f"did you mean `{near[0]}`?" if near else "")
        if len(found) > 1:
            files = tuple(entry.file for entry in found[:6])
            raise Fault("several-tensors", f"`{self.path}` has `{name}` in {len(found)} files", notes=files, help="name the file, too: [file, name]")
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
        kind = next((kind for kind in archive_kinds() if kind.config == name), None)
        try:
            if self.held is not None:
                if name not in self.side_files:
                    return None
                text = self.artifact(name).decode()
            else:
                folder = self.path if os.path.isdir(self.path) else os.path.dirname(self.path)
                place = os.path.join(folder, self.tag, name)
                if not os.path.isfile(place):
                    return self.settings() if kind is not None else None
                with open(place, encoding="utf-8") as stream:
                    text = stream.read()
            content = _yaml(text) if name.endswith((".yaml", ".yml")) else json.loads(text)
        except (OSError, ValueError, RecursionError) as problem:
            raise Fault("bad-config", f"`{place}` cannot be read ({type(problem).__name__})") from None
        if not isinstance(content, dict):
            raise Fault("bad-config", f"`{place}` holds no mapping of keys to values")
        return content if kind is None else kind.unwrap(content)

    def settings(self) -> dict[str, Any] | None:
        """The model's settings that the tensors' own files hold, as those of a training run with NeMo do."""
        file = self.settings_file
        found = (kind.settings(file) for kind in archive_kinds()) if file else ()
        return next((each for each in found if each is not None), None)

    @property
    def settings_file(self) -> str:
        """The first of the tensors' files, or what a distributed checkpoint has beside them, if it holds settings."""
        settings_file = format_named(self.format).settings_file
        return settings_file(self) if settings_file is not None else ""

    def artifacts(self) -> tuple[str, ...]:
        """The names of the files beside the tensors, without the configs of archives."""
        return tuple(name for name in self.side_files if not any(name == kind.config for kind in archive_kinds()))

    def artifact(self, name: str) -> bytes:
        """The bytes of the file called `name`: as it is, as a config refers to it (`nemo:name`), or without its number."""
        asked = name.removeprefix("nemo:")
        plain = [each for each in self.beside if any(kind.plain_name(each.name) == asked for kind in archive_kinds())]
        found = [each for each in self.beside if each.name == asked] or plain
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

    Raises `Fault`, which names what the path holds instead, if that is known.
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
    reader = format_named(found.format)
    assert reader.read is not None, f"format {found.format} finds files and does not read them"
    before = stamps_of(path for file in found.files if os.path.exists(path := found.place(file)[0]))
    held = reader.read(found)
    refuse_changed(before)
    if not held.entries:
        raise Fault("no-tensors", f"`{place}` holds no tensors", notes=tuple(f"looked in {f}" for f in found.files[:6]))
    if found.flat:
        _refuse_twice(place, held.entries)
    archive, side_files = found.archive, beside(found)
    paths = {path for entry in held.entries for path in paths_of(entry.window)} | {each.path for each in side_files}
    return _unscaled(Checkpoint(
        place, held.format, tuple(held.entries), side_files, tuple(held.others), tag, archive.notes if archive else (), archive,
        tuple(held.bare), {**stamps_of(sorted(paths)), **before}, held.metadata,
    ))  # fmt: skip


def _unscaled(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint, with what is stored as codes and scales as what it means."""
    if not may_be_coded(checkpoint.entries):
        return checkpoint
    from .scaled import decode_entries

    found = decode_entries(checkpoint.entries, _settings(checkpoint))
    return replace(checkpoint, entries=found.entries, undecoded=found.problems, notes=(*checkpoint.notes, *found.notes), stored=checkpoint.entries)


def _settings(checkpoint: Checkpoint) -> Mapping[str, Any]:
    """The config's; nothing where it cannot be read, which is said where it is needed."""
    try:
        return checkpoint.config(_CONFIG) or {}
    except Fault:
        return {}


def _refuse_twice(path: str, entries: Sequence[Entry]) -> None:
    file_of: dict[str, str] = {}
    for entry in entries:
        first = file_of.setdefault(entry.name, entry.file)
        if first != entry.file:
            raise Fault("duplicate-tensor", f"`{entry.name}` of `{path}` is in `{first}` and in `{entry.file}`")


def _yaml(text: str) -> Any:
    import yaml

    try:
        return load_yaml(text)
    except yaml.YAMLError:
        raise ValueError("not YAML") from None
