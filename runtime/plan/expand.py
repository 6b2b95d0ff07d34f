"""Families to arrays: the boxes of a family become coordinate rows with names and files, the instance loops
of a step become rows of (source tensor, target tensor, source offset, target offset)."""

from __future__ import annotations

import string
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .plan import Coords, Over, Step, Stored

Rows: TypeAlias = NDArray[np.int64]


def _grid(first: Coords, loops: list[tuple[int, Coords]]) -> Rows:
    rows = np.array(first, dtype=np.int64).reshape(1, len(first))
    for extent, strides in loops:
        moves = np.arange(extent, dtype=np.int64)[:, None] * np.array(strides, dtype=np.int64).reshape(1, -1)
        rows = (rows[:, None, :] + moves[None, :, :]).reshape(len(rows) * extent, len(first))
    return rows


def spelled(pattern: str) -> tuple[str, ...]:
    """The coordinates that a name or file pattern spells, in its order."""
    return tuple(field for _, field, _, _ in string.Formatter().parse(pattern) if field)


@dataclass(frozen=True)
class Family:
    """All tensors of one `Stored`; the tensor of row i has the global number `start + i`."""

    stored: Stored
    start: int

    @cached_property
    def rows(self) -> Rows:
        parts = [_grid(box.first, list(box.loops)) for box in self.stored.boxes]
        return np.concatenate(parts) if parts else np.zeros((0, len(self.stored.coords)), dtype=np.int64)

    @cached_property
    def elements(self) -> int:
        return int(np.prod(self.stored.shape, dtype=object)) if self.stored.shape else 1

    def spell(self, pattern: str) -> list[str]:
        """`pattern` formatted for every row."""
        if not spelled(pattern):
            return [pattern.format()] * len(self.rows)
        coords = self.stored.coords
        return [pattern.format(**dict(zip(coords, row, strict=True))) for row in self.rows.tolist()]

    @cached_property
    def _keys(self) -> tuple[Rows, Rows, Rows, Rows]:
        low, high = self.rows.min(axis=0), self.rows.max(axis=0)
        radix = np.ones(len(low), dtype=np.int64)
        for i in range(len(low) - 1, 0, -1):
            radix[i - 1] = radix[i] * (high[i] - low[i] + 1)
        keys = (self.rows - low) @ radix
        order = np.argsort(keys, kind="stable")
        return np.stack([low, high]), radix, keys[order], order

    def find(self, rows: Rows) -> Rows:
        """The global numbers of the tensors at the coordinates `rows`, -1 where there is none."""
        if not len(self.rows):
            return np.full(len(rows), -1, dtype=np.int64)
        (low, high), radix, keys, order = self._keys
        inside = ((rows >= low) & (rows <= high)).all(axis=1)
        wanted = (rows - low) @ radix
        spot = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(inside & (keys[spot] == wanted), order[spot] + self.start, -1)


def further_copies(family: Family) -> list[bool]:
    """By row: whether the tensor is a copy, on a later rank, of one that these ranks share."""
    slots = [family.stored.coords.index(rank) for rank in family.stored.shared]
    if not slots:
        return [False] * len(family.rows)
    return [any(row) for row in (family.rows[:, slots] > 0).tolist()]


def families(stored: tuple[Stored, ...]) -> tuple[Family, ...]:
    """One `Family` per `Stored`, numbered through."""
    made: list[Family] = []
    start = 0
    for item in stored:
        made.append(Family(item, start))
        start += len(made[-1].rows)
    return tuple(made)


@dataclass(frozen=True)
class Instances:
    """Rows of step instances; `source` is -1 for a fill."""

    step: Rows
    source: Rows
    target: Rows
    source_at: Rows
    target_at: Rows

    def take(self, index: Any) -> Instances:
        return Instances(
            self.step[index], self.source[index], self.target[index], self.source_at[index], self.target_at[index]
        )


def _offsets(first: int, over: tuple[Over, ...], side: str) -> Rows:
    return _grid((first,), [(loop.extent, (getattr(loop, side),)) for loop in over])[:, 0]


def instances(steps: tuple[Step, ...], sources: tuple[Family, ...], targets: tuple[Family, ...]) -> Instances:
    """Every instance of every step, in the order of the steps; unknown tensors have the number -2."""
    parts: list[list[Rows]] = [[], [], [], [], []]
    for number, step in enumerate(steps):
        target = targets[step.target].find(_grid(step.target_first, [(o.extent, o.target) for o in step.over]))
        if step.source is None:
            source = np.full(len(target), -1, dtype=np.int64)
        else:
            source = sources[step.source].find(_grid(step.source_first, [(o.extent, o.source) for o in step.over]))
            source = np.where(source < 0, -2, source)
        rows = (
            np.full(len(target), number, dtype=np.int64),
            source,
            np.where(target < 0, -2, target),
            _offsets(step.source_at, step.over, "source_at"),
            _offsets(step.target_at, step.over, "target_at"),
        )
        for part, row in zip(parts, rows, strict=True):
            part.append(row)
    empty = np.zeros(0, dtype=np.int64)
    return Instances(*(np.concatenate(part) if part else empty for part in parts))
