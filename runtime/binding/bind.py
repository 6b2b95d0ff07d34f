"""A plan and a checkpoint in, a `Bound` out: every window, dtype, file and byte count known, nothing read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import groupby
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np

from ..fault import Fault
from ..files.decode_window import decoded_to
from ..files.dtypes import FLOATING, castable
from ..files.file_layout import Put, TargetFile
from ..files.stamps import Stamps, stamps_of
from ..files.window import ITEM_BYTES, SideFile, Window, parts_of, paths_of
from ..plan.expand import Family, Instances, Rows, families, instances, spelled
from ..plan.plan import Plan, Step
from ..words import count, few
from .carry import carried
from .find_tensors import Readable, check_extents, match, refuse_far_too_many
from .made_tensors import Kept, make
from .metadata import merged
from .place_targets import lay_out


@dataclass(frozen=True)
class Target:
    """A tensor to write: `region` is its number in `files[file]`, `start:end` are its rows of the instances.

    `file` is -1 for a copy that the format leaves out: it can be streamed, and is not written.
    """

    family: int
    row: int
    name: str
    dtype: str
    file: int
    region: int
    start: int
    end: int


@dataclass(frozen=True, eq=False)
class Bound:
    """A plan bound to one checkpoint. `order` lists targets in the order of writing: ascending in every file."""

    plan: Plan
    path: str
    checkpoint: Readable
    sources: tuple[Family, ...]
    targets: tuple[Family, ...]
    windows: list[Window | None]
    tensors: list[Target]
    order: list[int]
    moves: Instances  # sorted by target
    checks: Instances  # `target` is a source tensor here
    files: tuple[TargetFile, ...]
    texts: tuple[tuple[str, bytes], ...]  # configs and indexes to write
    carried: tuple[SideFile, ...]  # to copy, under their names
    around: tuple[Put, ...] = ()  # what an archive holds around its files
    kept: Kept | None = None  # what the made tensors' file lives by
    stamps: Stamps = field(default_factory=dict)  # of all files that are read, since their headers were
    spool_path: str = ""  # what a compressed archive was decompressed to

    @property
    def puts(self) -> tuple[Put, ...]:
        """All that is written but the files of tensors."""
        texts = (Put(name, 0, text) for name, text in self.texts)
        return (*self.around, *texts, *(Put(each.name, 0, each) for each in self.carried))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all files written."""
        return tuple(dict.fromkeys((*(file.name for file in self.files), *(put.file for put in self.puts))))

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The bytes of each file that is written, by name."""
        found: dict[str, int] = {}
        ends = [(file.name, file.at + file.layout.size) for file in self.files] + [(put.file, put.at + put.nbytes) for put in self.puts]
        for name, end in ends:
            found[name] = max(end, found.get(name, 0))
        return found

    @property
    def made_path(self) -> str:
        """The temporary file of made tensors, or ""."""
        return self.kept.path if self.kept is not None else ""

    @cached_property
    def written(self) -> list[int]:
        """The targets that get a place in a file, in the order of writing."""
        return [i for i in self.order if self.tensors[i].file >= 0]

    @cached_property
    def bytes_read(self) -> int:
        """Bytes of the source tensors that steps read."""
        used = np.flatnonzero(np.bincount(self.moves.source[self.moves.source >= 0])).tolist()
        return sum(_bytes(self.windows[i]) for i in used)

    @cached_property
    def bytes_written(self) -> int:
        """Bytes of all files written, headers included."""
        return sum(file.layout.size for file in self.files) + sum(put.nbytes for put in self.puts)

    @property
    def disk_need(self) -> int:
        return self.bytes_written

    def coords(self, target: Target) -> dict[str, int]:
        """The coordinates of a target tensor, such as {"tp": 1, "layer": 3}."""
        family = self.targets[target.family]
        return dict(zip(family.stored.coords, family.rows[target.row].tolist(), strict=True))


def _bytes(window: Window | None) -> int:
    return sum(prod(part.shape) * ITEM_BYTES[part.dtype] for part in parts_of(window)) if window is not None else 0


def bind(
    plan: Plan,
    checkpoint: Readable,
    *,
    max_shard_bytes: int = 5_000_000_000,
    dtype: str | None = None,
    extra: Sequence[SideFile] = (),
    trees: Mapping[str, Any] = MappingProxyType({}),
) -> Bound:
    """Finds every window that `plan` reads in `checkpoint` and lays out every file that it writes.

    `extra` are further side files to copy; what the checkpoint itself has goes first. `trees` are
    the values in which a target file's tensors stand, by file; other files hold a dict of their tensors.
    """
    refuse_far_too_many(plan.source, checkpoint)
    sources, targets = families(plan.source.stored), families(plan.target.stored)
    kept = Kept()
    entries = match(plan.source, sources, checkpoint, make(plan.made, kept))
    windows = _averaged(plan, sources, [None if entry is None else entry.window for entry in entries])
    check_extents(windows)
    moves = instances(plan.steps, sources, targets)
    moves = moves.take(np.lexsort((moves.target_at, moves.target)))
    _refuse_absent(moves, windows, plan)
    total = sum(len(family.rows) for family in targets)
    spans = np.searchsorted(moves.target, np.arange(total + 1, dtype=np.int64))
    names = [family.spell(family.stored.name) for family in targets]
    dtypes = _dtypes(plan, targets, names, windows, moves, spans, dtype or plan.dtype)
    windows = _decoded(windows, moves, dtypes)
    _refuse_gaps(plan.steps, targets, moves, total)
    order = _order(targets)
    laid_out = lay_out(plan.target, targets, names, dtypes, order, max_shard_bytes, trees, merged(getattr(checkpoint, "metadata", {})))
    tensors: list[Target] = []
    limits = spans.tolist()
    for number, family in enumerate(targets):
        for row, name in enumerate(names[number]):
            i = family.start + row
            tensors.append(Target(number, row, name, dtypes[i], *laid_out.spots[i], limits[i], limits[i + 1]))
    checks = instances(plan.checks, sources, sources)
    there = np.array([window is not None for window in windows] + [False, False])
    checks = checks.take(there[checks.source] & there[checks.target])
    beside = carried(plan, checkpoint.beside, extra)
    spool = getattr(getattr(checkpoint, "held", None), "path", "")
    spool = "" if spool == str(checkpoint.path) else spool
    return Bound(
        plan, str(checkpoint.path), checkpoint, sources, targets, windows, tensors, order, moves, checks, laid_out.files,
        (*((name, text.encode()) for name, text in plan.files), *laid_out.texts), beside, kept=kept,
        stamps=_stamps(checkpoint, windows, beside, {kept.path, spool}), spool_path=spool,
    )  # fmt: skip


def _stamps(checkpoint: Readable, windows: Sequence[Window | None], beside: Sequence[SideFile], ours: set[str]) -> Stamps:
    """Of every file that is read, but for temporary ones of `ours`: as it was when the checkpoint was opened, or as it is now."""
    known: Stamps = getattr(checkpoint, "stamps", {})
    paths = ({path for window in windows if window is not None for path in paths_of(window)} | {each.path for each in beside}) - ours
    return {**stamps_of(sorted(paths - known.keys())), **{path: known[path] for path in sorted(paths & known.keys())}}


def _averaged(plan: Plan, sources: tuple[Family, ...], windows: list[Window | None]) -> list[Window | None]:
    """The windows, those of means in the dtype of what they are the mean of."""
    starts = {family.stored.name: family.start for family in sources}
    for made in plan.made:
        mean = windows[starts[made.name]] if made.steps else None
        if mean is not None:
            used = np.unique(instances(made.steps, sources, families((made.whole,))).source).tolist()
            dtypes = {window.dtype for i in used if i >= 0 and (window := windows[i]) is not None}
            if not dtypes <= set(FLOATING):
                wrong = ", ".join(sorted(dtypes - set(FLOATING)))
                raise Fault("mean-of-these", f"`{made.name.partition(':')[2]}` cannot be worked out from {wrong}", help="pad with zeros")
            windows[starts[made.name]] = replace(mean, dtype=dtypes.pop() if len(dtypes) == 1 else "float32")
    return windows


def _refuse_absent(moves: Instances, windows: list[Window | None], plan: Plan) -> None:
    absent = np.array([window is None for window in windows] + [True, False])  # -2 is unknown, -1 a fill
    bad = absent[moves.source] | (moves.target < 0)
    if bad.any():
        origins = dict.fromkeys(plan.steps[i].origin or f"step {i}" for i in np.unique(moves.step[bad]).tolist())
        raise Fault(
            "missing-tensor",
            f"{count(int(bad.sum()), 'copy').replace('copys', 'copies')} of the plan lack their tensor",
            notes=few(origins),
            help="compile the plan against this checkpoint",
        )


def _refuse_gaps(steps: tuple[Step, ...], targets: tuple[Family, ...], moves: Instances, total: int) -> None:
    sizes = np.array([prod(loop.extent for loop in step.loops) for step in steps] or [0], dtype=np.int64)
    filled = np.bincount(moves.target, weights=sizes[moves.step], minlength=total)
    for family in targets:
        wrong = np.flatnonzero(filled[family.start : family.start + len(family.rows)] != family.elements)
        if len(wrong):
            name = family.spell(family.stored.name)[int(wrong[0])]
            raise Fault("not-filled", f"the plan does not fill each element of `{name}` exactly once")


def _dtypes(
    plan: Plan,
    targets: tuple[Family, ...],
    names: list[list[str]],
    windows: list[Window | None],
    moves: Instances,
    spans: Rows,
    wanted: str | None,
) -> list[str]:
    known = tuple(ITEM_BYTES)
    codes = np.array([-1 if w is None else known.index(w.dtype) for w in windows] + [-1], dtype=np.int64)
    codes = codes[moves.source]
    low, high = np.full(len(spans) - 1, 99, dtype=np.int64), np.full(len(spans) - 1, -1, dtype=np.int64)
    real = codes >= 0
    np.minimum.at(low, moves.target[real], codes[real])
    np.maximum.at(high, moves.target[real], codes[real])
    usual = known[int(np.bincount(codes[real]).argmax())] if real.any() else "float32"
    out: list[str] = []
    mixed: dict[str, None] = {}
    wrong: dict[str, str] = {}
    for number, family in enumerate(targets):
        rows = slice(family.start, family.start + len(family.rows))
        for row, (least, most) in enumerate(zip(low[rows].tolist(), high[rows].tolist(), strict=True)):
            own = usual if most < 0 else known[least]
            every = {known[least], known[most]} if most >= 0 else {own}
            if family.stored.dtype:
                out.append(family.stored.dtype)
            elif wanted and not family.stored.buffer and all(name in FLOATING for name in every):
                out.append(wanted)
            else:
                out.append(own)
                if least != most and most >= 0:
                    mixed[f"{names[number][row]}: {', '.join(sorted(every))}"] = None
            if most >= 0:
                for name in every:
                    if not castable(name, out[-1]):
                        wrong[f"{name} to {out[-1]}"] = names[number][row]
    if mixed:
        raise Fault(
            "mixed-dtypes",
            f"{count(len(mixed), 'tensor')} would be filled from tensors of different dtypes",
            notes=few(mixed),
            help="choose one with --dtype, or fix it in the mapping with `as`",
        )
    if wrong:
        raise Fault(
            "unsupported-cast",
            f"{count(len(wrong), 'cast')} between dtypes that have no rounding defined",
            notes=few(f"{cast}, first for `{name}`" for cast, name in wrong.items()),
            help="keep these tensors as they are stored",
        )
    return out


def _decoded(windows: list[Window | None], moves: Instances, dtypes: list[str]) -> list[Window | None]:
    """The windows; decoded ones are rounded to the dtype of the targets that they fill, and not to another before."""
    if not any(window is not None and window.coded is not None for window in windows):
        return windows
    known = tuple(ITEM_BYTES)
    into = np.array([known.index(name) for name in dtypes], dtype=np.int64)[moves.target]
    low, high = np.full(len(windows) + 2, 99, dtype=np.int64), np.full(len(windows) + 2, -1, dtype=np.int64)  # the last two are fills
    np.minimum.at(low, moves.source, into)
    np.maximum.at(high, moves.source, into)
    return [
        decoded_to(window, known[least] if least == most else "float32") if window is not None and most >= 0 else window
        for window, least, most in zip(windows, low.tolist(), high.tolist(), strict=False)
    ]


def _order(targets: tuple[Family, ...]) -> list[int]:
    """Targets by (block, coordinates spelled in the name, family, coordinates): ranks of a tensor are neighbours."""
    keyed: list[tuple[int, tuple[int, ...], int, int]] = []
    for number, family in enumerate(targets):
        stored = family.stored
        said = set(spelled(stored.name))
        kept = [k for k, name in enumerate(stored.coords) if name in said]
        for row, coords in enumerate(family.rows[:, kept].tolist()):
            keyed.append((stored.block, tuple(coords), number, family.start + row))
    keyed.sort()
    return [key[3] for key in keyed]


def bundles(bound: Bound, order: list[int]) -> list[list[int]]:
    """Neighbours in `order` that are one tensor on several ranks: same family, same name."""

    def key(i: int) -> tuple[int, str]:
        return bound.tensors[i].family, bound.tensors[i].name

    return [list(group) for _, group in groupby(order, key)]
