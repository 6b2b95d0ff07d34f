"""Compares declared copies in the checkpoint that is read: all copies of a tensor together, chunk by chunk."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from typing import Any, TypeAlias

import numpy as np

from ..binding.bind import Bound
from ..fault import Fault
from ..files.dtypes import FLOATING
from ..files.file_limit import room
from ..files.gather import place_of
from ..files.window import ITEM_BYTES, Window, paths_of
from ..kernels.boxes import BoxT, LoopT, join, onto_strides
from ..kernels.kernels import ITEMS, Array, cast
from ..progress import EVERY_SECONDS, OnProgress, Progress
from .chunk import Class, Recipe, Way
from .fill import Filler, Sources, buffer
from .schedule import Budget, Job, budget, chunk_arena, cut, tiled

Row: TypeAlias = tuple[int, int, int, int, int]  # a check: step, both tensors, where in each
_MOST = 16  # copies that are compared at once


def compare_copies(bound: Bound, memory: int, workers: int = 1, progress: OnProgress | None = None) -> int:
    """Raises `copies-differ` at a difference; the number of bytes read.

    Copies of one tensor are gathered into dense classes of one recipe, and then compared bit by bit with the
    first: it is read once however many there are."""
    groups = _groups(bound)
    if not groups:
        return 0
    workers = max(1, min(workers, len(groups)))
    shift = any(s.scale != 1.0 or s.shift != 0.0 for s in bound.plan.checks)
    limits = budget(memory, workers, 1 << 20 if shift else 0, tiled(bound))
    recipes = _Recipes(bound, limits)
    jobs = [recipes.job(group) for group in groups]
    total = sum(job.recipe.total_bytes for job in jobs)
    largest = max(job.recipe.buffer_bytes for job in jobs)
    arena = max(min(limits.arena, chunk_arena(job.recipe)) for job in jobs)
    sources = Sources(room(len({path for window in bound.windows if window is not None for path in paths_of(window)})))
    waiting = iter(zip(jobs, groups, strict=True))
    lock = threading.Lock()
    stopped = False
    fillers: list[Filler] = []
    done = 0

    def work() -> None:
        nonlocal done
        filler, into = Filler(sources, arena, (), None), buffer(largest)
        fillers.append(filler)
        while not stopped:
            with lock:
                job, group = next(waiting, (None, ()))
            if job is None:
                return
            for number in range(job.recipe.chunks):
                chunk = job.recipe.piece(number)
                filler.fill(job, chunk, into, into.data, 0)
                (at, size, start), *others = chunk.parts
                for row, (other_at, _, _) in zip(group, others, strict=True):
                    a, b = into[at : at + size], into[other_at : other_at + size]
                    if not np.array_equal(a, b):
                        _differ(bound, row, a, b, start)
                with lock:
                    done += size * len(chunk.parts)
                if stopped:
                    return

    began = time.perf_counter()
    pool = ThreadPoolExecutor(workers)
    try:
        futures = [pool.submit(work) for _ in range(workers)]
        while wait(futures, EVERY_SECONDS if progress else 1.0, FIRST_EXCEPTION).not_done:
            if any(f.done() and f.exception() for f in futures):
                break
            if progress:
                progress(Progress("compare", done, total, (largest + arena + limits.gather) * workers, time.perf_counter() - began))
        stopped = True
        for future in futures:
            future.result()
    finally:
        stopped = True
        pool.shutdown(wait=True)
        sources.close()
    return sum(filler.bytes_read for filler in fillers)


def _groups(bound: Bound) -> list[list[Row]]:
    """The checks, those of one first tensor together."""
    checks, groups = bound.checks, dict[Any, list[Row]]()
    columns = (checks.step, checks.source, checks.target, checks.source_at, checks.target_at)
    for row in zip(*(c.tolist() for c in columns), strict=True):
        step, one, two, one_at, two_at = row
        second = bound.windows[two]
        assert second is not None
        key = (step, one, one_at, second.dtype)
        groups.setdefault(key, []).append((step, one, two, one_at, two_at))
    return [group[i : i + _MOST] for group in groups.values() for i in range(0, len(group), _MOST)]


class _Recipes:
    """Makes the job of a group; groups of equal form share a recipe."""

    def __init__(self, bound: Bound, limits: Budget) -> None:
        self.bound, self.limits = bound, limits
        self._known: dict[Any, Recipe] = {}

    def job(self, group: list[Row]) -> Job:
        step, one, _, one_at, _ = group[0]
        ends = [(self._window(one), one_at), *((self._window(two), two_at) for _, _, two, _, two_at in group)]
        key = (step, *((w.dtype, w.shape, w.strides, at) for w, at in ends))
        if key not in self._known:
            self._known[key] = self._recipe(step, ends)
        places = tuple(place_of(window, self.limits.gather) for window, _ in ends)
        return Job(self._known[key], places, ((one,), *((row[2],) for row in group)))

    def _window(self, number: int) -> Window:
        window = self.bound.windows[number]
        assert window is not None
        return window

    def _recipe(self, number: int, ends: list[tuple[Window, int]]) -> Recipe:
        step = self.bound.plan.checks[number]
        run = 1
        loops: tuple[list[LoopT], list[LoopT]] = ([], [])
        for loop in reversed(step.loops):
            loops[0].insert(0, (loop.extent, loop.source, run))
            loops[1].insert(0, (loop.extent, loop.target, run))
            run *= loop.extent
        dtype = ends[1][0].dtype
        classes: list[Class] = []
        for slot, (window, at) in enumerate(ends):
            box: BoxT = (at, 0, tuple(loops[slot > 0]))
            ways = tuple(
                Way(slot, (piece[0], piece[1], join(piece[2])), 0, *(() if slot else (step.scale, step.shift)))
                for piece in (onto_strides(box, window.shape, window.strides) if run else ())
            )
            classes.append(Class(run, dtype, ITEM_BYTES[dtype], ways))
        slots = tuple((window.dtype, ITEM_BYTES[window.dtype]) for window, _ in ends)
        return cut(tuple(classes), slots, self.limits)


def _differ(bound: Bound, row: Row, a: Array, b: Array, start: int) -> None:
    step, one, two, _, _ = row
    window = bound.windows[two]
    assert window is not None
    dtype, item = window.dtype, ITEM_BYTES[window.dtype]
    left, right = a.view(ITEMS[item]), b.view(ITEMS[item])
    unequal = np.flatnonzero(left != right) if item < 16 else np.flatnonzero((a != b).reshape(-1, 16).any(axis=1))
    where = int(unequal[0])
    notes = [f"first at element {start // item + where:,} of the part that is compared"]
    if dtype in FLOATING:
        x, y = _floats(left, dtype), _floats(right, dtype)
        gap = np.abs(x - y)
        notes.append(f"there {x[where]:.9g} and {y[where]:.9g}; largest difference near it {np.nanmax(gap):.9g}")
    origin = bound.plan.checks[step].origin
    if origin:
        notes.append(f"declared at {origin}")
    raise Fault(
        "copies-differ",
        f"declared copies differ: {_title(bound, one)} and {_title(bound, two)}",
        notes=tuple(notes),
        help="name the source's settings with --from-set if they are others; --no-compare-copies takes the first copy as it is",
    )


def _floats(items: Array, dtype: str) -> Array:
    out = np.empty(len(items), np.float64)
    if dtype == "bfloat16":
        wide = np.empty(len(items), np.float32)
        cast(items, wide.view(np.uint32), 0, 0, ((len(items), 1, 1),), ("bfloat16", "float32"))
        out[:] = wide
    else:
        out[:] = items.view(np.dtype(dtype))
    return out


def _title(bound: Bound, number: int) -> str:
    for family in bound.sources:
        if family.start <= number < family.start + len(family.rows):
            window = bound.windows[number]
            assert window is not None
            return f"`{family.spell(family.stored.name)[number - family.start]}` in {os.path.relpath(window.path, bound.path)}"
    return f"tensor {number}"
