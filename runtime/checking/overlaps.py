"""Rules of two layouts, as pieces, in; blocks out: the same elements of the model in one stored tensor of each side.

A piece is a box of elements of one tensor of the model. Each of its loops steps one axis of the model, so that a piece is,
for each axis by itself, a list of the axis' indices and of where each moves the place. Two pieces are held against each
other axis by axis, by looking indices up in such lists. Nothing here knows the arithmetic by which plans are made.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..plan.expand import Family
from .elements import Offsets

AT, COPY, COORDS = 0, 1, 2  # of the place that a loop moves: an offset, a copy number, coordinates
_Key: TypeAlias = str | int  # an axis, or the number of a loop that steps none


class Loop(Protocol):
    @property
    def extent(self) -> int: ...
    @property
    def axis(self) -> str | None: ...
    @property
    def step(self) -> int: ...
    @property
    def move(self) -> tuple[int, ...]: ...


class Piece(Protocol):
    """What a lowered rule is made of: see `compiler.algebra.pieces`."""

    @property
    def tensor(self) -> str | None: ...
    @property
    def first(self) -> tuple[tuple[str, int], ...]: ...
    @property
    def base(self) -> tuple[int, ...]: ...
    @property
    def loops(self) -> Sequence[Loop]: ...
    @property
    def padding(self) -> bool: ...
    @property
    def mean(self) -> str: ...


@dataclass(frozen=True, eq=False)
class Rule:
    """One rule of a side: its family of stored tensors and its pieces. stored = model * scale + shift. `further`: a copy of
    what other rules store."""

    family: Family
    pieces: Sequence[Piece]
    scale: float = 1.0
    shift: float = 0.0
    further: bool = False


@dataclass(frozen=True)
class Block:
    """Elements that both sides store: `source` and `target` are the stored tensors' numbers; all sums of a base and one of
    each array are offsets, those of both sides in the same order. Of padding, and of means, there is no source."""

    tensor: str
    target: int
    target_base: int
    target_offsets: tuple[Offsets, ...]
    source: int = -1
    source_base: int = 0
    source_offsets: tuple[Offsets, ...] = ()
    copy: bool = False
    padding: bool = False
    zeros: bool = False
    scale: float = 1.0
    shift: float = 0.0

    @property
    def count(self) -> int:
        total = 1
        for each in self.target_offsets:
            total *= len(each)
        return total


@dataclass(frozen=True, eq=False)
class _List:
    """What the loops of one axis reach: indices of the axis, and how far each moves the place."""

    index: Offsets
    moves: NDArray[np.int64]


def _lists(piece: Piece, first_copy: bool) -> dict[_Key, _List] | None:
    """A list for each axis, and for each loop that steps no axis. None where a first copy is asked for and there is none."""
    if first_copy and piece.base[COPY]:
        return None
    width = len(piece.base)
    found: dict[_Key, _List] = {axis: _List(np.array([at]), np.zeros((1, width), dtype=np.int64)) for axis, at in piece.first}
    for number, loop in enumerate(piece.loops):
        if first_copy and loop.move[COPY]:
            continue
        key: _Key = number if loop.axis is None else loop.axis
        steps = np.arange(loop.extent, dtype=np.int64)
        before = found.get(key, _List(np.zeros(1, dtype=np.int64), np.zeros((1, width), dtype=np.int64)))
        index = (before.index[:, None] + steps[None, :] * loop.step).ravel()
        moves = (before.moves[:, None, :] + steps[None, :, None] * np.array(loop.move, dtype=np.int64)).reshape(-1, width)
        found[key] = _List(index, moves)
    return found


class Overlaps:
    """The blocks that rules of a target share with those of a source, target rule by target rule.

    Of a source's copies the first is meant; with `by_rank`, names of ranks, that one which has the target's own numbers of these.
    """

    def __init__(self, sources: Sequence[Rule], targets: Sequence[Rule], by_rank: Collection[str] = ()) -> None:
        self.sources, self.targets, self.by_rank = sources, targets, by_rank
        self._sources: dict[str, list[tuple[Rule, Piece, dict[_Key, _List]]]] = defaultdict(list)
        for rule in sources:
            for piece in () if rule.further else rule.pieces:
                lists = _lists(piece, first_copy=not by_rank) if piece.tensor is not None and not piece.padding else None
                if lists is not None:
                    self._sources[piece.tensor or ""].append((rule, piece, lists))
        self._rows: dict[int, Mapping[tuple[int, ...], int]] = {}

    def has(self, tensor: str) -> bool:
        """Whether the source stores this tensor of the model."""
        return tensor in self._sources

    def of(self, number: int, only_copies: bool = False) -> Iterator[Block]:
        """The blocks of one target rule. `only_copies`: those of its copies beyond the first."""
        rule = self.targets[number]
        for piece in rule.pieces:
            lists = _lists(piece, first_copy=False)
            assert lists is not None
            if piece.tensor is None or piece.mean:
                if not only_copies:
                    yield from self._padding(rule, piece, lists)
                continue
            for source, source_piece, source_lists in self._sources.get(piece.tensor, ()):
                for block in self._shared(rule, piece, lists, source, source_piece, source_lists):
                    if block.copy or not only_copies:
                        yield block

    def _number(self, rule: Rule, place: NDArray[np.int64]) -> int:
        """The number of the stored tensor at these coordinates."""
        known = self._rows.get(id(rule))
        if known is None:
            known = self._rows[id(rule)] = {tuple(row): i for i, row in enumerate(rule.family.rows.tolist())}
        return rule.family.start + known[tuple(place[COORDS:].tolist())]

    def _padding(self, rule: Rule, piece: Piece, lists: Mapping[_Key, _List]) -> Iterator[Block]:
        base = np.array(piece.base, dtype=np.int64)
        for groups in product(*(list(_grouped(each.moves)) for each in lists.values())):
            place = base + sum((each.moves[at[0]] for each, at in zip(lists.values(), groups, strict=True)), np.zeros_like(base))
            offsets = tuple(each.moves[at, AT] for each, at in zip(lists.values(), groups, strict=True))
            yield Block(
                piece.tensor or "", self._number(rule, place), piece.base[AT], offsets, copy=bool(place[COPY]), padding=True, zeros=piece.tensor is None,
            )  # fmt: skip

    def _shared(
        self, rule: Rule, piece: Piece, lists: Mapping[_Key, _List], source: Rule, source_piece: Piece, source_lists: Mapping[_Key, _List]
    ) -> Iterator[Block]:
        wide, source_wide = len(piece.base), len(source_piece.base)
        per_axis: list[list[tuple[NDArray[np.int64], NDArray[np.int64]]]] = []  # by axis and group: moves on both sides
        shared = [(a, source.family.stored.coords.index(name)) for a, name in enumerate(rule.family.stored.coords) if name in self.by_rank and name in source.family.stored.coords]
        for key in dict.fromkeys([*lists, *(k for k in source_lists if isinstance(k, str))]):
            nothing = _List(np.zeros(1, dtype=np.int64), np.zeros((1, wide), dtype=np.int64))
            own = lists.get(key, nothing)
            if isinstance(key, int):
                joint = own.moves, np.zeros((len(own.moves), source_wide), dtype=np.int64)
            else:
                other = source_lists.get(key, _List(nothing.index, np.zeros((1, source_wide), dtype=np.int64)))
                spots = np.full(1 + max(int(own.index.max()), int(other.index.max())), -1, dtype=np.int64)
                spots[other.index] = np.arange(len(other.index))
                found = spots[own.index]
                there = found >= 0
                if not there.any():
                    return
                joint = own.moves[there], other.moves[found[there]]
            both = np.concatenate([joint[0], joint[1]], axis=1)
            fixed = both.copy()
            fixed[:, [AT, wide + AT]] = 0  # what differs in an offset alone stays together
            per_axis.append([(joint[0][at], joint[1][at]) for at in _grouped(fixed, everything=True)])
        for key, copies in source_lists.items():
            if isinstance(key, int):  # only by rank
                per_axis.append([(np.zeros((1, wide), dtype=np.int64), move[None]) for move in copies.moves])
        base, source_base = np.array(piece.base, dtype=np.int64), np.array(source_piece.base, dtype=np.int64)
        same = (rule.scale, rule.shift) == (source.scale, source.shift)
        scale = 1.0 if same else rule.scale / source.scale
        shift = 0.0 if same else rule.shift - source.shift * scale
        for groups in product(*per_axis):
            place = base + sum((a[0] for a, _ in groups), np.zeros_like(base))
            source_place = source_base + sum((b[0] for _, b in groups), np.zeros_like(source_base))
            if any(place[COORDS + a] != source_place[COORDS + b] for a, b in shared):
                continue
            yield Block(
                piece.tensor or "", self._number(rule, place), piece.base[AT], tuple(a[:, AT] for a, _ in groups),
                self._number(source, source_place), source_piece.base[AT], tuple(b[:, AT] for _, b in groups),
                bool(place[COPY]) or rule.further, piece.padding, False, scale, shift,
            )  # fmt: skip


def _grouped(moves: NDArray[np.int64], everything: bool = False) -> Iterator[NDArray[np.int64]]:
    """Positions of rows that are alike but for their offset: one array for each kind, or one for all where all are alike."""
    kept = moves if everything else moves[:, COPY:]
    if len(kept) == 1 or not (kept != kept[0]).any():
        yield np.arange(len(kept))
        return
    _, kinds = np.unique(kept, axis=0, return_inverse=True)
    kinds = kinds.ravel()
    order = np.argsort(kinds, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(kinds[order])) + 1):
        yield np.sort(part)


def chunks(block: Block, most: int) -> Iterator[Block]:
    """The block in parts of at most `most` elements, cut along what moves farthest in the target."""
    if block.count <= most:
        yield block
        return
    reach = [int(each[-1]) - int(each[0]) if len(each) > 1 else -1 for each in block.target_offsets]
    k = max(range(len(reach)), key=lambda i: abs(reach[i]))
    size = len(block.target_offsets[k])
    step = max(1, size * most // block.count)
    for at in range(0, size, step):

        def cut(arrays: tuple[Offsets, ...], at: int = at) -> tuple[Offsets, ...]:
            return tuple(each[at : at + step] if i == k else each for i, each in enumerate(arrays))

        yield from chunks(
            Block(
                block.tensor, block.target, block.target_base, cut(block.target_offsets), block.source, block.source_base,
                cut(block.source_offsets) if block.source >= 0 else (), block.copy, block.padding, block.zeros, block.scale, block.shift,
            ),
            most,
        )  # fmt: skip
