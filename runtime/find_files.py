"""A path in; which files hold the checkpoint, and in which container, out. Nothing is opened but an index."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from .distributed import Folder, Members, find_distributed
from .fault import Fault
from .megatron_file import RANK_FOLDER, STATE_FILES
from .nemo_archive import CONFIG, SUFFIX, Archive, open_archive, weights_of
from .path_names import did_you_mean
from .situations import PARTS, names_in, refuse_names, refuse_start
from .torch_dist import COMMON
from .training_run import RUN_SUFFIX, rank_files, refuse_several

DEPTH = 3  # how many folders deep rank files are looked for, the last one holding them
CONTAINER_OF = {".safetensors": "safetensors", ".bin": "bin", ".pt": "pt", ".pth": "pt", ".ckpt": "pt"}
_NO_WEIGHTS = {"training_args.bin", "optimizer.bin", "scheduler.bin"}
_OLD_RANK = re.compile(r"tp_rank_\d+_pp_rank_\d+")  # a rank file of NxD's first interface, saved with xser
_NUMBERED = re.compile(r"(.+)-(\d+)-of-(\d+)(\.\w+)$")


@dataclass(frozen=True)
class Found:
    """`files` are relative to `root`, with `/`. `index` says which tensors each must hold. `flat`: one namespace.
    `one`: a file was named, not a folder. In an `archive`, `root` is the archive and `files` are members. Of a
    `distributed` checkpoint, in that folder of it ("" or ending in `/`), the files are not listed."""

    root: str
    container: str
    files: tuple[str, ...]
    flat: bool
    index: Mapping[str, frozenset[str]] = field(default_factory=dict)
    one: bool = False
    archive: Archive | None = None
    distributed: str | None = None

    def place(self, file: str) -> tuple[str, int, int | None]:
        """Where a file's bytes are: the path, the first one, and how many if they are not all from there."""
        if self.archive is not None:
            member = self.archive.members[file]
            return self.archive.path, member.at, member.nbytes
        return os.path.join(self.root, *file.split("/")), 0, None

    @property
    def source(self) -> Members | Folder:
        """All the files that are there."""
        if self.archive is None:
            return Folder(self.root)
        return Members(self.archive.path, {name: (m.at, m.nbytes) for name, m in self.archive.members.items()})


def find(path: str) -> Found:
    """The container files at `path`, a file or a folder."""
    if os.path.isdir(path):
        return _in_folder(path)
    if not os.path.isfile(path):
        folder, name = os.path.split(path)
        ranks = rank_files(folder, name) if name.endswith(RUN_SUFFIX) else []
        if ranks:
            return Found(folder or ".", "pt", tuple(ranks), flat=False)
        raise Fault("no-checkpoint", f"`{path}` does not exist", help=did_you_mean(path))
    if path.endswith(SUFFIX):
        archive = open_archive(path)
        found = _distributed(path, archive)
        if found is not None:
            return found
        files = weights_of(path, archive.members)
        if not files:
            refuse_names(path, archive.members)
            inner = {name.partition("/")[0] for name in archive.members if "/" in name}
            packed = len(inner) == 1 and f"{min(inner)}/{CONFIG}" in archive.members
            raise Fault(
                "no-checkpoint", f"`{path}` holds no `model_weights.ckpt`", notes=few_names(archive.members),
                help=f"its members lie in a folder `{min(inner)}`: unpack it, and name that folder" if packed else "",
            )  # fmt: skip
        return Found(path, "nemo", files, flat=False, archive=archive)
    folder, name = os.path.split(path)
    refuse_names(path, [name], PARTS)
    container = "pt" if _OLD_RANK.fullmatch(name) else CONTAINER_OF.get(os.path.splitext(name)[1])
    if container is None:
        refuse_start(path, name)
        refuse_names(path, [name])
        raise _nothing(path)
    return Found(folder, container, (name,), flat=True, one=True)


def is_hidden(name: str) -> bool:
    """Dotfiles and files that are still being written."""
    return name.startswith(".") or name.endswith(".partial")


def _in_folder(root: str) -> Found:
    try:
        names = sorted(name for name in os.listdir(root) if not is_hidden(name))
    except OSError as problem:
        raise Fault("unreadable-file", f"`{root}` cannot be listed: {problem.strerror}") from None
    plain = [name for name in names if os.path.isfile(os.path.join(root, name))]
    found = _distributed(root)
    if found is not None:
        return found
    for container, stem in (("safetensors", "model"), ("bin", "pytorch_model")):
        index = f"{stem}.{container}.index.json"
        if index in plain:
            return _indexed(root, container, index)
        flat = _flat([n for n in plain if n.endswith(f".{container}") and n not in _NO_WEIGHTS], stem, container)
        if flat:
            _refuse_missing_numbers(root, flat)
            return Found(root, container, tuple(flat), flat=True)
    if CONFIG in plain:
        unpacked = weights_of(root, _two_deep(root, names))
        if unpacked:
            return Found(root, "pt", unpacked, flat=False)
        if "model_weights" in names:
            raise Fault(
                "no-checkpoint", f"`{root}` holds `model_weights`, which is no distributed checkpoint that is known here",
                notes=("neither its metadata.json nor a .metadata says what it is",), help="download or copy it again",
            )  # fmt: skip
    ranks = _rank_files(root, "model", 2) if "model" in names else []
    ranks = ranks or _rank_files(root, "", 1)
    if not ranks:
        refuse_names(root, names_in(root))
        raise _nothing(root)
    refuse_names(root, ranks, PARTS)
    refuse_several(root, ranks)
    return Found(root, "pt", tuple(ranks), flat=False)


def _distributed(path: str, archive: Archive | None = None) -> Found | None:
    found = Found(path, "", (), flat=True, archive=archive)
    place = find_distributed(found.source, path)
    return replace(found, container=place[0], distributed=place[1]) if place else None


def few_names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"it holds {name}" for name in list(names)[:5])


def _two_deep(root: str, names: list[str]) -> list[str]:
    """The files of a folder and of the folders in it."""
    found = []
    for name in names:
        inner = os.path.join(root, name)
        try:
            found += [f"{name}/{each}" for each in sorted(os.listdir(inner))] if os.path.isdir(inner) else [name]
        except OSError as problem:
            raise Fault("unreadable-file", f"`{inner}` cannot be listed: {problem.strerror}") from None
    return found


def _flat(names: list[str], stem: str, container: str) -> list[str]:
    """The file of the usual name, else its shards, else all."""
    if f"{stem}.{container}" in names:
        return [f"{stem}.{container}"]
    return [name for name in names if name.startswith(f"{stem}-")] or names


def _rank_files(root: str, folder: str, depth: int) -> list[str]:
    """Torch files in `folder` and below it, without those of optimizers, of xser tensors, of their infos and of what is
    beside distributed tensors."""
    found: list[str] = []
    state = STATE_FILES if RANK_FOLDER.fullmatch(folder.rpartition("/")[2]) else ()
    for name in sorted(os.listdir(os.path.join(root, folder))):
        file = f"{folder}/{name}" if folder else name
        if is_hidden(name) or name in state:
            continue
        if os.path.isdir(os.path.join(root, file)):
            if depth < DEPTH and not name.endswith(".tensors") and name != "optim":
                found += _rank_files(root, file, depth + 1)
        elif _OLD_RANK.fullmatch(name) or (CONTAINER_OF.get(os.path.splitext(name)[1]) == "pt" and not name.endswith(".info.pt") and name != COMMON):
            found.append(file)
    return found


def _indexed(root: str, container: str, index: str) -> Found:
    """The files of an index, all of them there."""
    place = os.path.join(root, index)
    try:
        with open(place, encoding="utf-8") as stream:
            content = json.load(stream)
    except (OSError, ValueError, RecursionError) as problem:
        raise Fault("bad-index", f"`{place}` is not JSON ({type(problem).__name__})") from None
    weights = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not weights or not all(isinstance(file, str) for file in weights.values()):
        raise Fault("bad-index", f"`{place}` has no `weight_map` from tensors to files")
    expected: dict[str, set[str]] = {}
    for name, file in weights.items():
        expected.setdefault(file, set()).add(name)
    for file in expected:
        if os.path.isabs(file) or ".." in file.split("/") or "\0" in file or not file:
            raise Fault("bad-index", f"`{place}` names file {file!r}, which is not one beside it")
    missing = sorted(file for file in expected if not os.path.isfile(os.path.join(root, file)))
    if missing:
        beside = f"{len(missing):,} of the {len(expected):,} files that it lists are missing"
        more = (f"... and {len(missing) - 6} more",) if len(missing) > 6 else ()
        raise Fault(
            "missing-file", f"`{place}` lists `{missing[0]}`, which is not there", notes=(beside, *missing[1:6], *more),
            help="download or copy them too; they have all to be in the folder of the index",
        )  # fmt: skip
    return Found(root, container, tuple(sorted(expected)), True, {k: frozenset(v) for k, v in expected.items()})


def _refuse_missing_numbers(root: str, files: list[str]) -> None:
    """Shards `x-00001-of-0000N` come in full."""
    series: dict[tuple[str, int, str], set[int]] = {}
    for match in filter(None, map(_NUMBERED.match, files)):
        series.setdefault((match[1], int(match[3]), match[4]), set()).add(int(match[2]))
    for (stem, count, suffix), numbers in series.items():
        if len(numbers) != count:
            have = f"{len(numbers)} of {count} shards"
            raise Fault("missing-file", f"`{root}` holds {have} of `{stem}-*-of-{count:05}{suffix}`")


def _nothing(path: str) -> Fault:
    return Fault(
        "no-checkpoint",
        f"`{path}` holds no checkpoint that is known here",
        notes=(
            "looked for: model.safetensors.index.json, *.safetensors, pytorch_model.bin.index.json, *.bin, "
            "model/**/*.pt, *.pt, *.pth, *.ckpt, *.nemo, .metadata, metadata.json",
        ),
    )
