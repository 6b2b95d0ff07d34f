"""Computes chunks: reads what a chunk needs, runs its kernels, leaves the target bytes in a buffer."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from ..fault import Fault
from ..files.gather import Gather
from ..kernels.kernels import ITEMS, Array, Kernel, cast, copy, fill
from ..plan.plan import Step
from .chunk import Chunk, Copy
from .schedule import Job


class Sources:
    """Source files, opened on first use and kept open, the first `most` of them."""

    def __init__(self, most: int = 1 << 20) -> None:
        self._open: dict[str, int] = {}
        self._lock = threading.Lock()
        self._most = most

    def read(self, path: str | Gather, into: memoryview, at: int) -> None:
        """Fills `into` from the bytes at `at`."""
        if isinstance(path, Gather):
            path.read(self.read, into, at)
            return
        number = self._open.get(path)
        if number is not None:
            self._read(number, path, into, at)
            return
        with self.file(path) as number:
            self._read(number, path, into, at)

    @contextmanager
    def file(self, path: str) -> Iterator[int]:
        """An open source."""
        number = self._open.get(path)
        if number is not None:
            yield number
            return
        try:
            number = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise Fault("read-failed", f"{path}: {error.strerror}") from error
        try:
            yield number
            with self._lock:
                if path not in self._open and len(self._open) < self._most:
                    self._open[path], number = number, -1
        finally:
            if number >= 0:
                os.close(number)

    def _read(self, number: int, path: str, into: memoryview, at: int) -> None:
        done, size = 0, len(into)
        while done < size:
            try:
                n = os.preadv(number, [into[done:] if done else into], at + done)
            except OSError as error:
                raise Fault("read-failed", f"{path}: {error.strerror}") from error
            if n == 0:
                raise Fault("truncated-file", f"{path} ended at byte {at + done:,} while it was read")
            done += n

    def close(self) -> None:
        with self._lock:
            for number in self._open.values():
                os.close(number)
            self._open.clear()


def buffer(size: int) -> Array:
    """Page-aligned bytes."""
    return np.frombuffer(mmap.mmap(-1, max(size, mmap.PAGESIZE)), dtype=np.uint8)[:size]


class Filler:
    """One worker's arena and kernels."""

    def __init__(
        self, sources: Sources, arena_bytes: int, steps: tuple[Step, ...], kernels: Mapping[int, Kernel] | None
    ) -> None:
        self.sources, self.steps, self.kernels = sources, steps, kernels or {}
        self.arena = buffer(-(-arena_bytes // 16) * 16)
        self._window = self.arena.data
        self._typed = {size: self.arena.view(kind) for size, kind in ITEMS.items()}
        self.bytes_read = 0
        self.calls = 0

    def fill(self, job: Job, chunk: Chunk, into: Array, window: memoryview, base: int, lift: bool = False) -> None:
        """Computes `chunk` into `into[base:]`; `window` is its memory view, `base` is a multiple of 16. With `lift`
        the long runs of the chunk are left out: whoever writes copies them from the source."""
        places, read = job.slots, self.sources.read
        for slot, offset, size, at in chunk.direct:
            path, start = places[slot]
            read(path, window[base + at : base + at + size], start + offset)
        for runs in () if lift else chunk.long:
            for slot, offset, size, at in runs:
                path, start = places[slot]
                read(path, window[base + at : base + at + size], start + offset)
        for slab in chunk.slabs:
            path, start = places[slab.slot]
            at, run = start + slab.at, slab.run
            if slab.turns > 1 and isinstance(path, Gather):
                path.read_turns(read, self._window[: slab.turns * run], at, run, slab.by)
            else:
                for turn in range(slab.turns):
                    read(path, self._window[turn * run : (turn + 1) * run], at + turn * slab.by)
            for one in slab.copies:
                self._run(one, into, base)
        for one in chunk.fills:
            fill(_typed(into, base + one.part_at, one.items[1]), one.target_at, one.loops)
        self.calls += len(chunk.fills)
        self.bytes_read += chunk.read_bytes

    def _run(self, one: Copy, into: Array, base: int) -> None:
        self.calls += 1
        source = self._typed[one.items[0]]
        target = _typed(into, base + one.part_at, one.items[1])
        if one.dtypes[0] != one.dtypes[1] or one.scale != 1.0 or one.shift != 0.0:
            cast(source, target, one.source_at, one.target_at, one.loops, one.dtypes, one.scale, one.shift)
            return
        kernel = self.kernels.get(one.step)
        if kernel is not None and self._fits(one):
            kernel(source, target, one.source_at, one.target_at, 0, one.loops[0][0])
        else:
            copy(source, target, one.source_at, one.target_at, one.loops)

    def _fits(self, one: Copy) -> bool:
        """Whether the box differs from the step's own only in its outermost extent."""
        loops = self.steps[one.step].loops
        return (
            len(loops) == len(one.loops)
            and bool(loops)
            and one.loops[0][1:] == (loops[0].source, loops[0].target)
            and all(a == (b.extent, b.source, b.target) for a, b in zip(one.loops[1:], loops[1:], strict=True))
        )


def _typed(into: Array, at: int, item_bytes: int) -> Array:
    end = len(into) - (len(into) - at) % item_bytes
    return into[at:end].view(ITEMS[item_bytes])
