"""A stored tensor that differs in; what would explain it, in words, out: its own elements, shape and order, or that it holds
what another one should hold.

What is looked at is held in memory whole where it is small enough, else some rows, some columns, a corner, and what is
around the first element that differs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import numpy as np

from ..files.window import Window, row_major
from .compare import Pair
from .contents import Contents
from .elements import Offsets, index_of, summed, take
from .numbers import Array, bits_of, can_cast, cast, truncated
from .orders import Marks, reordered
from .overlaps import Block, chunks
from .relations import of_elements, of_shape

Box: TypeAlias = tuple[range, ...]  # a part of a tensor, by dimension


@dataclass(frozen=True, eq=False)
class Suspects:
    """`most`: how many elements may be held at once. `sizes` are those of the model's axes."""

    contents: Contents
    most: int
    sizes: dict[str, int]

    @property
    def pair(self) -> Pair:
        return self.contents.pair

    def explain(self, number: int, first: int = 0, different: int = -1) -> str:
        """What would make the stored tensor of this number what it should be; empty where nothing that is known does.

        `first` is the offset of its first element that differs, and `different` how many do, where that is known.
        """
        entry = self.pair.target.entries[number]
        if entry is None or entry.dtype.startswith("complex"):
            return ""
        shape, window = self.pair.target.shape(number), entry.window
        blocks = self.contents.blocks(number)
        for box, theirs in self._boxes(shape, window.shape, first):
            found = take(self.pair.files, window, 0, _offsets(window.shape, theirs))
            wanted = self._expected(blocks, shape, box, window.dtype, found)
            if wanted is None:
                return ""
            if np.array_equal(wanted, found):
                continue
            alike = wanted.shape == found.shape
            whole = wanted.size == prod(shape) or (alike and int(np.count_nonzero(wanted != found)) == different)
            for said in (
                of_elements(wanted, found, window.dtype, [r.start for r in box]) if alike else "",
                self._truncated(blocks, shape, box, window.dtype, found),
                of_shape(wanted, found),
                reordered(wanted, found, self._marks(number, blocks) if box == _whole(shape) else [Marks(sizes=self.sizes)] * len(shape)),
            ):
                if said:
                    return said if whole else f"{said} (as far as was looked at: {_extent(found.shape)} of {_extent(window.shape)})"
        return self._elsewhere(number, window) or self._of_parts(number, blocks, window)

    def _boxes(self, shape: tuple[int, ...], found: tuple[int, ...], first: int) -> Iterator[tuple[Box, Box]]:
        """What is looked at of both: all; or all rows of some columns, all columns of some rows, a corner, and what is
        around the first element that differs."""
        if max(prod(shape), prod(found)) <= self.most:
            yield _whole(shape), _whole(found)
            return
        side = max(1, int(self.most ** (1 / len(shape))))
        corners = [[min(n, side) for n in shape]]
        for keep in dict.fromkeys((0, len(shape) - 1)):
            limits = list(shape)
            while prod(limits) > self.most and max((n for k, n in enumerate(limits) if k != keep), default=1) > 1:
                k = max((k for k in range(len(limits)) if k != keep), key=lambda k: limits[k])
                limits[k] = -(-limits[k] // 2)
            limits[keep] = max(1, min(limits[keep], self.most * limits[keep] // prod(limits)))
            corners.append(limits)
        if len(found) != len(shape):
            return
        for limits in (*corners[1:], corners[0]):
            theirs = tuple(range(n if limit == own else min(n, limit)) for n, limit, own in zip(found, limits, shape, strict=True))
            if prod(map(len, theirs)) <= 4 * self.most:
                yield tuple(map(range, limits)), theirs
        if found == shape:
            starts = [min(max(0, at - n // 2), extent - n) for at, n, extent in zip(index_of(shape, first), corners[0], shape, strict=True)]
            around = tuple(range(start, start + n) for start, n in zip(starts, corners[0], strict=True))
            yield around, around

    def _expected(self, blocks: Sequence[Block], shape: tuple[int, ...], box: Box, dtype: str, found: Array | None) -> Array | None:
        """What a part of a stored tensor should hold, in `dtype`; where it is padding, what `found` has, or zeros."""
        extents = tuple(map(len, box))
        out = np.zeros(extents, bits_of(dtype))
        if found is not None and found.shape == extents:
            out[...] = found
        steps, own = row_major(shape), row_major(extents)
        for part in (p for block in blocks if not block.padding for p in chunks(block, self.pair.most)):
            source = self.pair.source_window(part.source, dtype)
            if source is None or not can_cast(source.dtype, dtype):
                return None
            offsets = summed(part.target_base, part.target_offsets)
            inside = np.ones(offsets.shape, dtype=bool)
            places = np.zeros_like(offsets)
            for step, extent, kept, stride in zip(steps, shape, box, own, strict=True):
                index = offsets // step % extent - kept.start
                inside &= (index >= 0) & (index < len(kept))
                places += index * stride
            if inside.any():
                read = take(self.pair.files, source, part.source_base, part.source_offsets)[inside]
                out.reshape(-1)[places[inside]] = cast(read, source.dtype, dtype, part.scale, part.shift)
        return out

    def _truncated(self, blocks: Sequence[Block], shape: tuple[int, ...], box: Box, dtype: str, found: Array) -> str:
        """Whether bits were cut off where a conversion rounds."""
        windows = [w for block in blocks if not block.padding and (w := self.pair.source_window(block.source, "float32")) is not None]
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
        found = self.contents.holder(own, window)
        if found is None or found == number:
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
        found = take(self.pair.files, window, 0, _offsets(window.shape, _whole(window.shape)))
        wanted = self._expected(blocks, window.shape, _whole(window.shape), window.dtype, found)
        if wanted is None or found.ndim < 2:
            return ""
        rows = np.flatnonzero((wanted != found).reshape(len(found), -1).any(axis=1))
        if len(rows) == 0 or 2 * len(rows) > len(found):
            return ""
        low, high = int(rows[0]), int(rows[-1]) + 1
        part, own = wanted[low:high], found[low:high]
        said = of_elements(part, own, window.dtype, [low]) or reordered(part, own, [Marks(sizes=self.sizes)] * found.ndim)
        return f"in rows {low} to {high - 1} alone: {said}" if said and (low, high) != (0, len(found)) else ""


def _whole(shape: Sequence[int]) -> Box:
    return tuple(map(range, shape))


def _offsets(shape: tuple[int, ...], box: Box) -> list[Offsets]:
    return [np.arange(kept.start, kept.stop, dtype=np.int64) * step for kept, step in zip(box, row_major(shape), strict=True)]


def _extent(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "1"
