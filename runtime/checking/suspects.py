"""A stored tensor that differs in; what would explain it, in words, out: its own elements, shape and order, or that it holds
what another one should hold.

What is looked at is held in memory whole where it is small enough, else its first rows, or its first columns. Which other
tensor's content it has is found by digests, which are summed up over all elements in any order, a bounded number at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from ..files.window import Window, row_major
from .compare import Pair
from .elements import Offsets, summed, take
from .numbers import Array, bits_of, can_cast, cast, truncated
from .orders import Marks, reordered
from .overlaps import Block, chunks
from .relations import of_elements, of_shape

MOST_OTHERS = 20_000  # tensors whose content is held against one that differs
_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


@dataclass(frozen=True, eq=False)
class Suspects:
    """`most`: how many elements may be held at once. `sizes` are those of the model's axes."""

    pair: Pair
    most: int
    sizes: dict[str, int]
    _blocks: dict[int, dict[int, list[Block]]] = field(default_factory=dict)
    _digests: dict[tuple[int, str], tuple[int, int] | None] = field(default_factory=dict)

    def explain(self, number: int) -> str:
        """What would make the stored tensor of this number what it should be; empty where nothing that is known does."""
        entry = self.pair.target.entries[number]
        if entry is None or entry.dtype.startswith("complex"):
            return ""
        shape, window = self.pair.target.shape(number), entry.window
        blocks = self.blocks(number)
        for box, found_box in self._boxes(shape, window.shape):
            found = take(self.pair.files, window, 0, found_box).reshape([len(each) for each in found_box])
            wanted = self._expected(blocks, shape, box, window.dtype, found)
            if wanted is None:
                return ""
            if np.array_equal(wanted, found):
                continue
            whole = prod(len(each) for each in box) == prod(shape)
            for said in (
                of_elements(wanted, found, window.dtype) if wanted.shape == found.shape else "",
                self._truncated(blocks, shape, box, window.dtype, found),
                of_shape(wanted, found),
                reordered(wanted, found, self._marks(number, blocks)),
            ):
                if said:
                    return said if whole else f"{said} (as far as was looked at: {_extent(found.shape)} of {_extent(window.shape)})"
        return self._elsewhere(number, window) or self._of_parts(number, blocks, window)

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
        """Which of the target's tensors should hold what `window` holds."""
        own = self._digest([(self.pair, Block("", 0, 0, tuple(_all(window.shape))), window)], window.dtype)
        for number in numbers:
            if own is not None and self._expected_digest(number, window.dtype) == own:
                return number
        return None

    def _boxes(self, shape: tuple[int, ...], found: tuple[int, ...]) -> Iterator[tuple[list[Offsets], list[Offsets]]]:
        """What is looked at of both: all, or all rows of the first columns, and all columns of the first rows."""
        kept = [k for k in (0, len(shape) - 1) if k >= 0] if prod(shape) > self.most or prod(found) > self.most else [-1]
        for keep in dict.fromkeys(kept):
            limits = list(shape)
            while keep >= 0 and prod(limits) > self.most and max((n for k, n in enumerate(limits) if k != keep), default=1) > 1:
                k = max((k for k in range(len(limits)) if k != keep), key=lambda k: limits[k])
                limits[k] = max(1, limits[k] // 2)
            if prod(limits) > self.most:
                limits[keep] = max(1, self.most * limits[keep] // prod(limits))
            other = [n if keep < 0 or limits[k] == shape[k] else min(n, limits[k]) for k, n in enumerate(found)] if len(found) == len(shape) else list(found)
            if prod(other) <= 4 * self.most:
                yield [o[:n] for o, n in zip(_all(shape), limits, strict=True)], [o[:n] for o, n in zip(_all(found), other, strict=True)]

    def _expected(self, blocks: Sequence[Block], shape: tuple[int, ...], box: Sequence[Offsets], dtype: str, found: Array | None) -> Array | None:
        """What a part of a stored tensor should hold, in `dtype`; where it is padding, what `found` has, or zeros."""
        extents = tuple(len(each) for each in box)
        out = np.zeros(extents, bits_of(dtype))
        if found is not None and found.shape == extents:
            out[...] = found
        steps, own = row_major(shape), row_major(extents)
        for part in (p for block in blocks if not block.padding for p in chunks(block, self.pair.most)):
            source = self.pair.source_window(part.source)
            if source is None or not can_cast(source.dtype, dtype):
                return None
            offsets = summed(part.target_base, part.target_offsets)
            inside = np.ones(offsets.shape, dtype=bool)
            places = np.zeros_like(offsets)
            for step, extent, limit, stride in zip(steps, shape, extents, own, strict=True):
                index = offsets // step % extent
                inside &= index < limit
                places += index * stride
            if inside.any():
                read = take(self.pair.files, source, part.source_base, part.source_offsets)[inside]
                out.reshape(-1)[places[inside]] = cast(read, source.dtype, dtype, part.scale, part.shift)
        return out

    def _truncated(self, blocks: Sequence[Block], shape: tuple[int, ...], box: Sequence[Offsets], dtype: str, found: Array) -> str:
        """Whether bits were cut off where a conversion rounds."""
        windows = [w for block in blocks if not block.padding and (w := self.pair.source_window(block.source)) is not None]
        if not windows or len({w.dtype for w in windows}) != 1 or any((b.scale, b.shift) != (1.0, 0.0) for b in blocks):
            return ""
        exact = self._expected(blocks, shape, box, windows[0].dtype, None)
        cut = truncated(exact, windows[0].dtype, dtype) if exact is not None else None
        if cut is None or cut.shape != found.shape or not np.array_equal(cut, found):
            return ""
        return f"elements are cut off to {dtype} (towards zero), and should be rounded to the nearest"

    def _marks(self, number: int, blocks: Sequence[Block]) -> list[Marks]:
        """What stands where along each dimension."""
        shape = self.pair.target.shape(number)
        steps = row_major(shape)
        marks: list[Marks] = []
        for k, extent in enumerate(shape):
            owner: dict[int, set[str]] = {}
            for block in blocks if extent <= 1 << 17 and len(blocks) < 4096 else ():
                if not block.padding:
                    index = (summed(block.target_base, block.target_offsets) // steps[k] % extent) if block.count <= self.pair.most else np.zeros(0, np.int64)
                    for i in np.unique(index).tolist():
                        owner.setdefault(i, set()).add(block.tensor)
            parts: list[tuple[str, int, int]] = []
            for i in range(extent):
                names = owner.get(i, set())
                name = next(iter(names)) if len(names) == 1 else ""
                if parts and parts[-1][0] == name and sum(parts[-1][1:]) == i:
                    parts[-1] = (name, parts[-1][1], parts[-1][2] + 1)
                else:
                    parts.append((name, i, 1))
            several = [p for p in parts if p[0]] if len({name for name, _, _ in parts}) > 1 else []
            marks.append(Marks(several, self.sizes))
        return marks

    # --- what another tensor should hold ---------------------------------------------------------

    def _elsewhere(self, number: int, window: Window) -> str:
        """Whether the tensor holds what another one should hold: of another layer, expert or rank, or of another name."""
        side = self.pair.target
        shape = side.shape(number)
        if window.shape != shape:
            return ""
        own = side.family(number)
        near = [f for f in self.pair.target.families if f.stored.shape == shape]
        near.sort(key=lambda f: f is not own)
        others = [f.start + row for f in near for row in range(len(f.rows)) if f.start + row != number][:MOST_OTHERS]
        found = self.holds(window, others)
        if found is None:
            return ""
        family = side.family(found)
        if family is own:
            here, there = own.rows[number - own.start].tolist(), own.rows[found - own.start].tolist()
            changed = [(name, a, b) for name, a, b in zip(own.stored.coords, here, there, strict=True) if a != b]
            said = ", ".join(f"{name} {b}" for name, _, b in changed)
            by = f" ({changed[0][0]} shifted by {changed[0][2] - changed[0][1]:+d})" if len(changed) == 1 else ""
            return f"it holds what `{side.names[found]}` of {said} should hold{by}"
        return f"it holds what `{side.names[found]}` should hold"

    def _of_parts(self, number: int, blocks: Sequence[Block], window: Window) -> str:
        """Where only some tensors of the model in a joined one differ, or only some rows: which."""
        if window.shape != self.pair.target.shape(number) or prod(window.shape) > self.most:
            return ""
        found = take(self.pair.files, window, 0, _all(window.shape)).reshape(window.shape)
        wanted = self._expected(blocks, window.shape, _all(window.shape), window.dtype, found)
        if wanted is None or found.ndim < 2:
            return ""
        rows = np.flatnonzero((wanted != found).reshape(len(found), -1).any(axis=1))
        if len(rows) == 0 or 2 * len(rows) > len(found):
            return ""
        low, high = int(rows[0]), int(rows[-1]) + 1
        part, own = wanted[low:high], found[low:high]
        said = of_elements(part, own, window.dtype) or reordered(part, own, [Marks(sizes=self.sizes)] * found.ndim)
        return f"in rows {low} to {high - 1} alone: {said}" if said and (low, high) != (0, len(found)) else ""

    def _expected_digest(self, number: int, dtype: str) -> tuple[int, int] | None:
        key = number, dtype
        if key not in self._digests:
            parts = []
            for block in self.blocks(number):
                source = self.pair.source_window(block.source) if block.source >= 0 else None
                if block.padding:
                    continue
                if source is None or not can_cast(source.dtype, dtype):
                    self._digests[key] = None
                    return None
                parts.append((self.pair, block, source))
            self._digests[key] = self._digest(parts, dtype)
        return self._digests[key]

    def _digest(self, parts: Iterable[tuple[Pair, Block, Window]], dtype: str) -> tuple[int, int] | None:
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


def _all(shape: Sequence[int]) -> list[Offsets]:
    return [np.arange(n, dtype=np.int64) * step for n, step in zip(shape, row_major(tuple(shape)), strict=True)]


def _extent(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "1"
