"""Compares declared copies in the checkpoint that is read: both ends of every check, chunk by chunk."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

from .bind import Bound
from .boxes import BoxT, LoopT, elements, join, onto_strides
from .chunk import Class, Recipe, Way
from .fault import Fault
from .fill import Filler, Sources, buffer
from .kernels import FLOATING, ITEMS, Array, cast
from .progress import EVERY_SECONDS, OnProgress, Progress
from .schedule import Budget, Job, budget, cut
from .window import ITEM_BYTES, Window


def compare_copies(bound: Bound, memory: int, progress: OnProgress | None = None) -> int:
    """Raises `copies-differ` at the first difference; the number of bytes compared.

    Both ends of a check are gathered into two dense classes of one recipe, and then compared bit by bit."""
    checks, steps = bound.checks, bound.plan.checks
    if not len(checks.step):
        return 0
    limits = budget(memory, 1, 1 << 20 if any(s.scale != 1.0 or s.shift != 0.0 for s in steps) else 0)
    began = said = time.perf_counter()
    loops = [tuple((loop.extent, loop.source, loop.target) for loop in step.loops) for step in steps]
    sizes = np.array([elements(loop) for loop in loops], dtype=np.int64)
    total, done = int(sizes[checks.step].sum()), 0
    known: dict[Any, Recipe] = {}
    sources = Sources()
    filler = Filler(sources, limits.arena, (), None)
    into = buffer(0)
    try:
        for row in zip(*(c.tolist() for c in (checks.step, checks.source, checks.target, checks.source_at,
                                               checks.target_at)), strict=True):  # fmt: skip
            step, one, two, one_at, two_at = row
            first, second = bound.windows[one], bound.windows[two]
            assert first is not None
            assert second is not None
            key = (step, _form(first), _form(second), one_at, two_at)
            if key not in known:
                known[key] = _recipe(loops[step], steps[step], (first, one_at), (second, two_at), limits)
            recipe = known[key]
            job = Job(recipe, ((first.path, first.at), (second.path, second.at)), ((one,), (two,)))
            if len(into) < recipe.buffer_bytes:
                into = buffer(recipe.buffer_bytes)
            for number in range(recipe.chunks):
                chunk = recipe.piece(number)
                filler.fill(job, chunk, into, into.data, 0)
                (at, size, start), (other_at, _, _) = chunk.parts
                a, b = into[at : at + size], into[other_at : other_at + size]
                if not np.array_equal(a, b):
                    _differ(bound, row, a, b, start)
                done += size // ITEM_BYTES[second.dtype]
            if progress and time.perf_counter() - said > EVERY_SECONDS:
                said = time.perf_counter()
                progress(Progress("compare", done, total, len(into) + limits.arena, said - began))
    finally:
        sources.close()
    return done


def _form(window: Window) -> tuple[Any, ...]:
    return window.dtype, window.shape, window.strides


def _recipe(
    loops: tuple[LoopT, ...], step: Any, one: tuple[Window, int], two: tuple[Window, int], limits: Budget
) -> Recipe:
    run = 1
    ends: tuple[list[LoopT], list[LoopT]] = ([], [])
    for extent, by_one, by_two in reversed(loops):
        ends[0].insert(0, (extent, by_one, run))
        ends[1].insert(0, (extent, by_two, run))
        run *= extent
    dtype = two[0].dtype
    classes: list[Class] = []
    for slot, ((window, at), end) in enumerate(zip((one, two), ends, strict=True)):
        box: BoxT = (at, 0, tuple(end))
        ways = tuple(
            Way(slot, (piece[0], piece[1], join(piece[2])), 0, *((step.scale, step.shift) if slot == 0 else ()))
            for piece in onto_strides(box, window.shape, window.strides)
        )
        classes.append(Class(run, dtype, ITEM_BYTES[dtype], ways))
    slots = tuple((w.dtype, ITEM_BYTES[w.dtype]) for w, _ in (one, two))
    return cut(tuple(classes), slots, limits)


def _differ(bound: Bound, row: tuple[int, ...], a: Array, b: Array, start: int) -> None:
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
        help="use --no-compare-copies to take the first copy",
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
            return f"`{family.spell(family.stored.name)[number - family.start]}` in {os.path.basename(window.path)}"
    return f"tensor {number}"
