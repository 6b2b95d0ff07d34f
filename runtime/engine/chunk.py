"""A recipe says how the parts of some target tensors are filled; a chunk is a piece of it, ready to run.

Offsets in a recipe are relative to its slots (the source tensors it reads), so equal layers share one recipe."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..kernels.boxes import BoxT, LoopT, clip, elements, join, narrow, source_span, target_span, widest

ALIGN = 16
_NEAR_BYTES = 64 << 10
_DIRECT_BYTES = 8 << 10
LONG_BYTES = 256 << 10  # from here on a run may be copied within the kernel
RUN_BYTES = 2 << 10  # from here on a run that stands alone is read alone


@dataclass(frozen=True)
class Way:
    """One box of a class: from `slot` (-1: zeros), with the step's arithmetic."""

    slot: int
    box: BoxT
    step: int
    scale: float = 1.0
    shift: float = 0.0


@dataclass(frozen=True)
class Class:
    """Target tensors with equal content: computed once, written to each."""

    elements: int
    dtype: str
    item_bytes: int
    ways: tuple[Way, ...]


@dataclass(frozen=True)
class Copy:
    """One kernel call from the arena (or nowhere) to the chunk's part of a class."""

    step: int
    dtypes: tuple[str, str]
    items: tuple[int, int]
    source_at: int
    target_at: int  # elements; the target's start in the chunk buffer is `part_at` bytes
    part_at: int
    loops: tuple[LoopT, ...]
    scale: float
    shift: float


@dataclass(frozen=True)
class Slab:
    """`turns` runs of `run` bytes, `by` bytes apart from `at` in a slot, read to the arena one after the other; and what
    is copied out of it."""

    slot: int
    at: int
    run: int
    copies: tuple[Copy, ...]
    turns: int = 1
    by: int = 0

    @property
    def nbytes(self) -> int:
        return self.run * self.turns


@dataclass(frozen=True)
class Chunk:
    """`parts` are (buffer offset, bytes, offset in the tensor's bytes) by class; `direct` are reads
    (slot, offset, bytes, buffer offset), as are the longer ones in `long`, by class, in the order of the buffer;
    slabs go through the arena."""

    parts: tuple[tuple[int, int, int], ...]
    direct: tuple[tuple[int, int, int, int], ...]
    long: tuple[tuple[tuple[int, int, int, int], ...], ...]
    slabs: tuple[Slab, ...]
    fills: tuple[Copy, ...]
    read_bytes: int
    needed_bytes: int


class Recipe:
    """Classes and slots, cut into `chunks` pieces of at most about `chunk_bytes`; pieces are made when asked for."""

    def __init__(
        self, classes: tuple[Class, ...], slots: tuple[tuple[str, int], ...], chunk_bytes: int, arena_bytes: int
    ) -> None:
        self.classes, self.slots, self.arena_bytes = classes, slots, arena_bytes
        self._made: dict[int, Chunk] = {}
        self._spans = [
            (
                np.array([way.box[1] for way in c.ways], dtype=np.int64),
                np.array([way.box[1] + target_span(way.box[2]) for way in c.ways], dtype=np.int64),
            )
            for c in classes
        ]
        self.total_bytes = sum(c.elements * c.item_bytes for c in classes)
        self.cut(chunk_bytes)

    def cut(self, chunk_bytes: int) -> bool:
        """Cuts into as few pieces as fit; False where even one element of each class does not."""
        most = max((c.elements for c in self.classes), default=0)
        self._made.clear()
        self.chunks = 1
        while True:
            # Classes of equal size are cut alike: copies are compared chunk by chunk.
            cuts = {n: self._cuts(n) for n in {c.elements for c in self.classes}}
            self._bounds = [cuts[c.elements] for c in self.classes]
            self.buffer_bytes = self._largest()
            if self.buffer_bytes <= chunk_bytes:
                return True
            if self.chunks >= most:
                return False
            guess = self.chunks * self.buffer_bytes / max(chunk_bytes, 1)
            self.chunks = min(most, max(self.chunks + 1, int(guess * 1.02)))

    def _cuts(self, count: int) -> Any:
        """Where classes of `count` elements are cut, at whole rows if there are some of a fitting size."""
        if self.chunks == 1:
            return np.array([0, count])
        limit = count // self.chunks // 8
        ways = (way for c in self.classes if c.elements == count for way in c.ways)
        unit = max((loop[2] for way in ways for loop in way.box[2] if loop[2] <= limit), default=1)
        if unit == 1 and limit >= 4096:
            unit = 4096
        cuts = np.arange(self.chunks + 1, dtype=np.int64) * count // self.chunks // unit * unit
        cuts[-1] = count
        return cuts

    def _largest(self) -> int:
        total = 0
        for c, cuts in zip(self.classes, self._bounds, strict=True):
            total = total + -(-np.diff(cuts) * c.item_bytes // ALIGN) * ALIGN
        return int(np.max(total)) if self.classes else 0

    def piece(self, number: int) -> Chunk:
        """The chunk `number`, made on first use."""
        made = self._made.get(number)
        if made is None:
            made = self._made[number] = self._make(number)
        return made

    def _make(self, number: int) -> Chunk:
        at = 0
        parts: list[tuple[int, int, int]] = []
        short: list[tuple[int, int, int, int]] = []
        long: list[tuple[tuple[int, int, int, int], ...]] = []
        fills: list[Copy] = []
        queued: dict[int, list[tuple[int, int, int, Copy, BoxT]]] = {}
        for c, cuts, (lows, highs) in zip(self.classes, self._bounds, self._spans, strict=True):
            low, high = int(cuts[number]), int(cuts[number + 1])
            parts.append((at, (high - low) * c.item_bytes, low * c.item_bytes))
            direct: list[tuple[int, int, int, int]] = []
            for w in np.flatnonzero((lows < high) & (highs > low)).tolist() if low < high else ():
                way = c.ways[w]
                for source, target, loops in clip(way.box, low, high):
                    self._place(c, way, (source, target - low, join(loops)), at, direct, fills, queued)
            at += -(-(high - low) * c.item_bytes // ALIGN) * ALIGN
            short += (d for d in direct if d[2] < LONG_BYTES)
            long.append(tuple(sorted((d for d in direct if d[2] >= LONG_BYTES), key=lambda d: d[3])))
        slabs = [slab for slot, items in queued.items() for slab in self._slabs(slot, items)]
        whole = sum(d[2] for d in short) + sum(d[2] for runs in long for d in runs)
        needed = whole + sum(q[2] for items in queued.values() for q in items)
        read = whole + sum(slab.nbytes for slab in slabs)
        return Chunk(tuple(parts), tuple(sorted(short)), tuple(long), tuple(slabs), tuple(fills), read, needed)

    def _place(
        self,
        c: Class,
        way: Way,
        box: BoxT,
        part_at: int,
        direct: list[tuple[int, int, int, int]],
        fills: list[Copy],
        queued: dict[int, list[tuple[int, int, int, Copy, BoxT]]],
    ) -> None:
        source, target, loops = box
        dtype, item = self.slots[way.slot] if way.slot >= 0 else (c.dtype, c.item_bytes)
        copy = Copy(
            way.step, (dtype, c.dtype), (item, c.item_bytes), source, target, part_at, loops, way.scale, way.shift
        )
        if way.slot < 0:
            fills.append(copy)
            return
        run = not loops or (len(loops) == 1 and loops[0][1] == loops[0][2] == 1)
        count = elements(loops)
        plain = dtype == c.dtype and way.scale == 1.0 and way.shift == 0.0
        if run and plain and (count * item >= _DIRECT_BYTES or len(c.ways) == 1):
            direct.append((way.slot, source * item, count * item, part_at + target * item))
            return
        limit = self.arena_bytes // item
        pieces = [box] if source_span(loops) <= limit else narrow(box, max(1, limit // 2))
        for piece in pieces:
            queued.setdefault(way.slot, []).append(_queue(copy, piece))

    def _slabs(self, slot: int, items: list[tuple[int, int, int, Copy, BoxT]]) -> Iterable[Slab]:
        size = self.slots[slot][1]
        for group in self._groups(items, _NEAR_BYTES):
            low, high = group[0][0], max(item[1] for item in group)
            if sum(item[2] for item in group) * 3 >= (high - low) * 2:
                yield _slab(slot, group, size)
                continue
            close: list[tuple[int, int, int, Copy, BoxT]] = []
            for item in group:
                packed = self._packed(slot, item[3], item[4])
                yield from packed
                if not packed:
                    close.append(item)
            for part in self._groups(close, _NEAR_BYTES):
                yield _slab(slot, part, size)

    def _packed(self, slot: int, copy: Copy, box: BoxT) -> list[Slab]:
        """A box whose runs stand far apart, read run by run; nothing where they are short or not apart."""
        source, target, loops = box
        item = copy.items[0]
        if not loops:
            return []
        k = widest(loops)
        extent, by_source, by_target = loops[k]
        run = source_span(loops[:k] + loops[k + 1 :])
        if run * item < RUN_BYTES or run * item > self.arena_bytes or run >= by_source:
            return []
        step = self.arena_bytes // (run * item)
        slabs: list[Slab] = []
        for i in range(0, extent, step):
            turns = min(step, extent - i)
            kept = join((*loops[:k], (turns, run, by_target), *loops[k + 1 :]))
            part = replace(copy, source_at=0, target_at=target + i * by_target, loops=kept)
            slabs.append(Slab(slot, (source + i * by_source) * item, run * item, (part,), turns, by_source * item))
        return slabs

    def _groups(
        self, items: list[tuple[int, int, int, Copy, BoxT]], near: int
    ) -> Iterable[list[tuple[int, int, int, Copy, BoxT]]]:
        """Neighbours whose union fits the arena, by source offset."""
        group: list[tuple[int, int, int, Copy, BoxT]] = []
        low = high = 0
        for item in sorted(items, key=lambda item: item[:2]):
            if group and item[0] - high <= near and max(high, item[1]) - low <= self.arena_bytes:
                group.append(item)
                high = max(high, item[1])
            else:
                if group:
                    yield group
                group, low, high = [item], item[0], item[1]
        if group:
            yield group


def _queue(copy: Copy, box: BoxT) -> tuple[int, int, int, Copy, BoxT]:
    item = copy.items[0]
    low = box[0] * item
    return low, low + source_span(box[2]) * item, elements(box[2]) * item, copy, box


def _slab(slot: int, group: list[tuple[int, int, int, Copy, BoxT]], size: int) -> Slab:
    low, high = group[0][0], max(item[1] for item in group)
    copies = tuple(
        Copy(
            copy.step, copy.dtypes, copy.items, box[0] - low // size, box[1], copy.part_at, join(box[2]),
            copy.scale, copy.shift,
        )
        for _, _, _, copy, box in group
    )  # fmt: skip
    return Slab(slot, low, high - low, copies)
