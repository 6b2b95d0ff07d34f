"""A folder of NxD's zero1 optimizer state in; its groups, each with a tree and the tensors it holds, out.

A group is the data parallel ranks that share one tensor and pipeline parallel rank. Each holds the same tree: `state`,
`param_groups`, `base_state` {index: {step, exp_avg, exp_avg_sq}}, `shape_info` {index: local shape} and perhaps
`sharded_master_weights` {index: tensor}. A full file, of no rank, holds the uncut tensors.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from math import prod
from pathlib import Path
from typing import Any

from ..runtime.checkpoint.checkpoint import Checkpoint
from ..runtime.checkpoint.newest_tag import choose_tag
from ..runtime.fault import Fault
from ..runtime.files.window import Entry
from ..runtime.formats.ranks.read_tree import read_tree
from ..runtime.formats.torch.tensor_tree import first_difference, leaves
from ..runtime.words import few

RANK_FILE = re.compile(r"(?:dp_rank_(\d+)|full)_(?:ep_rank_(\d+)_)?tp_rank_(\d+)_pp_rank_(\d+)\.pt")
_EXPERTS = "ep_param_id_offset"
Key = tuple[int, int, int]  # ranks of expert, tensor and pipeline parallelism


@dataclass(frozen=True)
class Held:
    """A tensor that a group holds: `shape` is the uncut one. `cut`: over data parallel ranks, along dimension 0."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    cut: bool


@dataclass(frozen=True)
class Group:
    tree: Any
    tensors: tuple[Held, ...]


@dataclass(frozen=True)
class ZeroState:
    """`dp` is 0 where the files are full. `degrees` are those of `Key`; `experts`: file names spell the first."""

    checkpoint: Checkpoint
    dp: int
    degrees: Key
    experts: bool
    groups: Mapping[Key, Group]


def keys_of(degrees: Key, step: Key = (1, 1, 1)) -> Iterator[Key]:
    """Every group, or the first one of every block of groups."""
    for ep in range(0, degrees[0], step[0]):
        for tp in range(0, degrees[1], step[1]):
            for pp in range(0, degrees[2], step[2]):
                yield ep, tp, pp


def prefix_of(key: Key) -> str:
    """What stands before the names of a group's tensors, which are the same in every group."""
    return "{}.{}.{}:".format(*key)


def file_of(key: Key, dp: int | None, experts: bool) -> str:
    """The file of a group's rank `dp`, or its full one."""
    ep, tp, pp = key
    start = "full_" if dp is None else f"dp_rank_{dp:02}_"
    return start + (f"ep_rank_{ep:02}_" if experts else "") + f"tp_rank_{tp:02}_pp_rank_{pp:02}.pt"


def open_zero_state(src: str | Path) -> ZeroState:
    """Reads headers only. Raises `Fault` for whatever a change of the data parallel degree could not keep right."""
    folder = _folder(os.fspath(src))
    ranks, experts = _rank_files(folder)
    dp = 1 + max((-1 if rank is None else rank for rank, _ in ranks), default=-1)
    keys = [key for _, key in ranks]
    degrees = (1 + max(k[0] for k in keys), 1 + max(k[1] for k in keys), 1 + max(k[2] for k in keys))
    due = prod(degrees) * max(dp, 1)
    if due != len(ranks):
        files = ((key, rank) for key in keys_of(degrees) for rank in (range(dp) if dp else (None,)))
        missing = [file_of(key, rank, experts) for key, rank in islice((f for f in files if f[::-1] not in ranks), 5)]
        raise Fault(
            "missing-file", f"{folder} lacks {due - len(ranks):,} of the {due:,} rank files that its file names count",
            notes=tuple(missing), help="copy the checkpoint's optim folder whole",
        )  # fmt: skip
    groups: dict[Key, Group] = {}
    entries: list[Entry] = []
    outside = False
    known: dict[bytes, Any] = {}
    for key in keys_of(degrees):
        groups[key], held, apart = _group(folder, key, dp, experts, known)
        entries += held
        outside |= apart
    if not entries:
        raise Fault("no-tensors", f"{folder} holds no optimizer state: its files have no tensors")
    return ZeroState(Checkpoint(folder, "xser" if outside else "pt", tuple(entries), ()), dp, degrees, experts, groups)


def _folder(src: str) -> str:
    """The folder of rank files: `src` itself, its `optim`, or that of the newest complete tag in it."""
    for folder in (os.path.join(src, "optim"), src):
        if os.path.isdir(folder) and any(RANK_FILE.fullmatch(name) for name in _listed(folder)):
            return folder
    tag = choose_tag(src)
    if tag:
        return _folder(os.path.join(src, tag))
    raise Fault(
        "no-checkpoint", f"{src} holds no zero1 optimizer state", notes=("looked for optim/dp_rank_*_tp_rank_*_pp_rank_*.pt and full_*.pt",),
        help="name the checkpoint's folder, or its optim folder",
    )  # fmt: skip


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as problem:
        raise Fault("unreadable-file", f"`{folder}` cannot be listed: {problem.strerror}") from None


def _rank_files(folder: str) -> tuple[set[tuple[int | None, Key]], bool]:
    """(data parallel rank or None, group) of every file, and whether names spell expert parallel ranks."""
    ranks: set[tuple[int | None, Key]] = set()
    spelled: set[bool] = set()
    strays: list[str] = []
    names = sorted(name for name in _listed(folder) if not name.startswith("."))
    for name in names:
        owner = re.sub(r"(\.pt)(?:\.info\.pt|\.tensors)$", r"\1", name)
        hit = RANK_FILE.fullmatch(name)
        if hit:
            dp, ep, tp, pp = (None if part is None else int(part) for part in hit.groups())
            key = (ep or 0, tp or 0, pp or 0)
            spelled.add(ep is not None)
            ranks.add((dp, key))
            if name != file_of(key, dp, ep is not None):
                strays.append(name)
        elif owner == name or owner not in names:
            strays.append(name)
    if strays:
        raise Fault(
            "extra-file", f"{folder} holds files that are not of zero1 optimizer state", notes=few(strays),
            help="move them out of the folder",
        )  # fmt: skip
    if len(spelled) > 1 or len({dp is None for dp, _ in ranks}) > 1:
        what = "full and sharded files" if len(spelled) == 1 else "file names with and without ep_rank"
        raise Fault("mixed-files", f"{folder} holds {what}", help="keep one kind: the others are of another checkpoint")
    return ranks, spelled.pop()


def _group(folder: str, key: Key, dp: int, experts: bool, known: dict[bytes, Any]) -> tuple[Group, list[Entry], bool]:
    """One group's tree, found equal on all of its ranks, and the tensors of all ranks."""
    tree: Any = None
    entries: list[Entry] = []
    tensors: tuple[Held, ...] = ()
    outside = False
    for rank in range(max(dp, 1)):
        file = file_of(key, rank if dp else None, experts)
        found, own, apart = read_tree(os.path.join(folder, file), file, prefix_of(key), known)
        if not isinstance(found, dict) or not isinstance(found.get("shape_info"), dict):
            raise Fault("no-shape-info", f"`{file}` does not say the shapes of its parameters: it has no `shape_info`")
        if _EXPERTS in found:
            raise Fault(
                "expert-optimizer", f"`{file}` is of the optimizer for expert parallelism, whose shards cannot be told from the files",
                notes=("it cuts the state of experts over the ranks that share them, not over all data parallel ranks",),
                help="keep the data parallel degree of this checkpoint",
            )  # fmt: skip
        held = tuple(_held(found, own, file, prefix_of(key), dp))
        differs = first_difference(tree, found) if rank else None
        if differs is None:  # equal trees have equal names, but their tensors may be of other dtypes
            differs = next(((a.name,) for a, b in zip(tensors, held, strict=False) if a != b), None)
        if differs is not None:
            raise Fault(
                "ranks-disagree", f"`{file}` and that of data parallel rank 0 disagree about `{'.'.join(map(str, differs)) or 'everything'}`",
                help="the checkpoint is damaged, or mixed from two: copy it again",
            )  # fmt: skip
        tree, tensors, outside = tree if rank else found, held, outside or apart
        entries += own
    return Group(tree, tensors), entries, outside


def _held(tree: Any, entries: list[Entry], file: str, prefix: str, dp: int) -> Iterator[Held]:
    by_name = {entry.name: entry for entry in entries}
    for path, leaf in leaves(tree):
        entry, name = by_name[leaf.name], leaf.name.removeprefix(prefix)
        match path:
            case ("base_state", _, "step"):
                yield Held(name, entry.shape, entry.dtype, False)
            case ("base_state", index, _) | ("sharded_master_weights", index):
                shape = _shape(tree["shape_info"], index, name, file)
                cut = (-(-shape[0] // dp), *shape[1:]) if dp else shape
                if entry.shape != cut:
                    lost = ("the framework's script keeps only the first rank's master weights in full files",)
                    raise Fault(
                        "wrong-shape", f"`{name}` in `{file}` has shape {list(entry.shape)}, not {list(cut)}",
                        notes=(f"shape_info says {list(shape)} for parameter {index}" + (f", in {dp} parts" if dp else ""),
                               *(lost if not dp and path[0] != "base_state" else ())),
                        help="the checkpoint is damaged: go back to the one that it was made from",
                    )  # fmt: skip
                yield Held(name, shape, entry.dtype, True)
            case _:
                raise Fault(
                    "unknown-tensor", f"`{file}` holds a tensor `{name}`, of which it is not known whether it is cut",
                    notes=("known are base_state.INDEX.NAME and sharded_master_weights.INDEX",), help="take it out of the file",
                )  # fmt: skip


def _shape(shapes: Mapping[Any, Any], index: Any, name: str, file: str) -> tuple[int, ...]:
    shape = shapes.get(index)
    if not isinstance(shape, (list, tuple)) or not shape or not all(type(n) is int and n > 0 for n in shape):
        said = "nothing" if shape is None else f"{shape!s:.80}"
        raise Fault("no-shape-info", f"`{file}` says {said} of the shape that `{name}` has", help="the checkpoint is damaged: copy it again")
    if prod(shape) >= 1 << 62:
        raise Fault("no-shape-info", f"`{file}` says a shape of `{name}` that no tensor has")
    return tuple(shape)
