"""Stored tensors of the target in; digests of what they should hold, from the source, and of what they hold, out.

A digest is summed up over all elements, each with its place, in any order and a bounded number at a time. Zeros count for
nothing, as padding is of zeros.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..files.window import Window, row_major
from ..plan.expand import Family
from .compare import Pair
from .elements import summed, take
from .numbers import can_cast, cast
from .overlaps import Block, chunks

Digest: TypeAlias = tuple[int, int]

MOST_OTHERS = 20_000  # tensors whose content is held against one that differs
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True, eq=False)
class Contents:
    """What the stored tensors of a pair's target should hold. Everything is worked out once, when it is asked for."""

    pair: Pair
    _blocks: dict[int, dict[int, list[Block]]] = field(default_factory=dict)
    _digests: dict[tuple[int, str], Digest | None] = field(default_factory=dict)
    _holders: dict[tuple[int, str], tuple[dict[Digest, int], Iterator[int]]] = field(default_factory=dict)

    def blocks(self, number: int) -> list[Block]:
        """The blocks that fill a stored tensor."""
        targets = self.pair.overlaps.targets
        at = next(i for i, rule in enumerate(targets) if rule.family.start <= number < rule.family.start + len(rule.family.rows))
        if at not in self._blocks:
            self._blocks.clear()  # one rule's at a time
            by_number: dict[int, list[Block]] = {}
            for block in self.pair.overlaps.of(at):
                by_number.setdefault(block.target, []).append(block)
            self._blocks[at] = by_number
        return self._blocks[at].get(number, [])

    def holds(self, window: Window, numbers: Iterable[int]) -> int | None:
        """Which of these tensors should hold what `window` holds."""
        own = self._found(window)
        return next((n for n in numbers if own is not None and self._expected(n, window.dtype) == own), None)

    def holder(self, own: Family, window: Window) -> int | None:
        """Which tensor of the family's shape should hold what `window` holds. Those of the family come first."""
        digest = self._found(window)
        if digest is None:
            return None
        key = own.start, window.dtype
        if key not in self._holders:
            near = [f for f in self.pair.target.families if f.stored.shape == own.stored.shape]
            near.sort(key=lambda f: f is not own)
            self._holders[key] = {}, iter([f.start + row for f in near for row in range(len(f.rows))][:MOST_OTHERS])
        known, waiting = self._holders[key]
        while digest not in known:
            number = next(waiting, None)
            if number is None:
                return None
            other = self._expected(number, window.dtype)
            if other is not None:
                known.setdefault(other, number)
        return known[digest]

    def _expected(self, number: int, dtype: str) -> Digest | None:
        key = number, dtype
        if key not in self._digests:
            parts = []
            for block in self.blocks(number):
                source = self.pair.source_window(block.source, dtype) if block.source >= 0 else None
                if block.padding:
                    continue
                if source is None or not can_cast(source.dtype, dtype):
                    self._digests[key] = None
                    return None
                parts.append((self.pair, block, source))
            self._digests[key] = self._digest(parts, dtype)
        return self._digests[key]

    def _found(self, window: Window) -> Digest | None:
        whole = tuple(np.arange(n, dtype=np.int64) * step for n, step in zip(window.shape, row_major(window.shape), strict=True))
        return self._digest([(self.pair, Block("", 0, 0, whole), window)], window.dtype)

    def _digest(self, parts: Iterable[tuple[Pair, Block, Window]], dtype: str) -> Digest | None:
        """Two sums over all elements, each of its bits and its place; whatever the order of the blocks."""
        sums = [np.uint64(0), np.uint64(0)]
        with np.errstate(over="ignore"):
            for pair, block, window in parts:
                for part in chunks(block, pair.most):
                    own = part.source < 0
                    read = take(pair.files, window, part.target_base if own else part.source_base, part.target_offsets if own else part.source_offsets)
                    bits = cast(read, window.dtype, dtype, part.scale, part.shift)
                    if bits.dtype.itemsize > 8:
                        return None
                    places = summed(part.target_base, part.target_offsets).astype(np.uint64)
                    for k in range(2):
                        value = _mixed(bits.astype(np.uint64) + _mixed(places + np.uint64(k)))
                        value[bits == 0] = 0  # padding of zeros counts for nothing
                        sums[k] = sums[k] + value.sum(dtype=np.uint64)
        return int(sums[0]), int(sums[1])


def _mixed(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A one-to-one scrambling of 64 bits (splitmix64's finishing steps)."""
    values = values + _MIX[0]
    values = (values ^ (values >> np.uint64(30))) * _MIX[1]
    values = (values ^ (values >> np.uint64(27))) * _MIX[2]
    return values ^ (values >> np.uint64(31))
