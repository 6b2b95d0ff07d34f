"""A plan from a file in; nothing, or a ValueError with a sentence, out: every index, offset and path stays in bounds."""

from __future__ import annotations

import math
import re
import string
from collections.abc import Collection
from dataclasses import replace
from math import prod

from ..files.dtypes import FLOATING
from ..files.window import ITEM_BYTES
from ..formats.registry import format_named, format_names
from ..inside import why_outside
from .plan import Box, Plan, Side, Step, Stored

KERNELS = ("range", "rows", "transpose", "fill")
MOST_TENSORS, MOST_OBJECTS, MOST = 10**8, 10**6, 1 << 62
_WIDTH = re.compile(r"(0[1-9])?")


def check_plan(plan: Plan) -> None:
    """What the compiler makes always passes; a plan that was damaged or made by hand may not."""
    for side in (plan.source, plan.target):
        _side(side)
    for name, _ in plan.files:
        _path(name)
    _need(plan.dtype is None or plan.dtype in FLOATING, f"it casts to `{plan.dtype}`")
    for number, step in enumerate(plan.steps):
        _step(f"step {number}", step, plan.source, plan.target)
    for made in plan.made:
        what = f"`{made.name}`"
        _need((made.rows >= 1) == bool(made.steps), f"{what} is made of {made.rows} rows")
        if made.steps:
            _need(made.function == "mean", f"{what} is made by `{made.function}`, which is not known")
            _need(all(n >= 1 for n in made.shape) and prod(made.whole.shape) < MOST, f"{what} has shape {list(made.shape)}")
            for number, step in enumerate(made.steps):
                _step(f"step {number} of {what}", step, plan.source, replace(plan.target, stored=(made.whole,)))
    for number, step in enumerate(plan.checks):
        _need(step.source is not None, f"check {number} compares nothing")
        _step(f"check {number}", step, plan.source, plan.source)


def _need(holds: bool, sentence: str) -> None:
    if not holds:
        raise ValueError(sentence)


def _side(side: Side) -> None:
    _need(side.format in format_names(), f"layout `{side.layout}` lives in `{side.format}` files, which are not known here")
    _need(all(degree >= 1 for _, degree in side.ranks), f"a degree of layout `{side.layout}` is not a whole number from 1")
    for stored in side.stored:
        _stored(stored, format_named(side.format).in_folder)
    total = sum(_points(box) for stored in side.stored for box in stored.boxes)
    _need(total <= MOST_TENSORS, f"layout `{side.layout}` has {total:,} tensors")
    for pattern, axes in side.objects:
        _object(f"object `{pattern}`", pattern, axes)
    objects = sum(prod(extent for _, _, extent in axes) for _, axes in side.objects)
    _need(objects <= MOST_OBJECTS, f"layout `{side.layout}` has {objects:,} objects")


def _points(box: Box) -> int:
    return prod(extent for extent, _ in box.loops)


def _stored(stored: Stored, distributed: bool) -> None:
    what = f"tensor `{stored.name}`"
    _need(all(n >= 1 for n in stored.shape) and prod(stored.shape) < MOST, f"{what} has shape {list(stored.shape)}")
    _need(stored.dtype is None or stored.dtype in ITEM_BYTES, f"{what} has dtype `{stored.dtype}`")
    _need(len(set(stored.coords)) == len(stored.coords), f"{what} has a coordinate twice")
    _need(set(stored.shared) <= set(stored.coords), f"{what} is shared along a coordinate that it does not have")
    for pattern in (stored.name, *stored.others, stored.file, *stored.other_files):
        _holes(what, pattern, stored.coords)
    for file in ((stored.file, *stored.other_files) if stored.file else ()):
        _need(file.endswith("/") or not distributed, f"{what} is in `{file}`, which is not a folder")
        _path(file.removesuffix("/") if distributed else file)
    for box in stored.boxes:
        _need(len(box.first) == len(stored.coords), f"{what} has coordinates {list(box.first)}")
        low, high = list(box.first), list(box.first)
        for extent, moves in box.loops:
            _need(extent >= 1 and len(moves) == len(low), f"a loop of {what} has {extent} turns")
            for i, move in enumerate(moves):
                low[i] += min(0, (extent - 1) * move)
                high[i] += max(0, (extent - 1) * move)
        _need(all(n >= 0 for n in low) and all(n < 1 << 31 for n in high), f"{what} has coordinates out of bounds")


def _object(what: str, pattern: str, axes: tuple[tuple[str, int, int], ...]) -> None:
    names = {axis for axis, _, _ in axes}
    _need(len(names) == len(axes), f"{what} has an axis twice")
    _need(all(first >= 0 and extent >= 1 for _, first, extent in axes), f"{what} has an axis without numbers")
    _holes(what, pattern, names)


def _holes(what: str, pattern: str, names: Collection[str]) -> None:
    for _, hole, spec, conversion in string.Formatter().parse(pattern):
        if hole is not None:
            _need(hole in names and not conversion and bool(_WIDTH.fullmatch(spec or "")), f"{what} cannot be spelled")


def _path(name: str) -> None:
    why = why_outside(name)
    _need(not why, f"file `{name}` is not one within the destination: {why}")


def _step(what: str, step: Step, source: Side, target: Side) -> None:
    _need(step.kernel in KERNELS and (step.kernel == "fill") == (step.source is None), f"{what} has kernel `{step.kernel}`")
    _need(math.isfinite(step.scale) and step.scale != 0 and math.isfinite(step.shift), f"{what} has scale {step.scale}")
    _need(all(o.extent >= 1 for o in step.over) and all(x.extent >= 1 and x.source >= 0 and x.target >= 0 for x in step.loops), f"{what} has a loop out of bounds")
    _need(prod(o.extent for o in step.over) <= MOST_TENSORS * 16, f"{what} runs too often")
    ends = [(step.target, target, step.target_first, step.target_at, [(o.extent, o.target_at) for o in step.over] + [(x.extent, x.target) for x in step.loops], [o.target for o in step.over])]
    if step.source is not None:
        ends.append((step.source, source, step.source_first, step.source_at, [(o.extent, o.source_at) for o in step.over] + [(x.extent, x.source) for x in step.loops], [o.source for o in step.over]))
    for number, side, first, at, loops, moves in ends:
        _need(0 <= number < len(side.stored), f"{what} is of tensor family {number}, of {len(side.stored)}")
        stored = side.stored[number]
        _need(all(len(m) == len(stored.coords) for m in (first, *moves)), f"{what} has other coordinates than `{stored.name}`")
        _need(all(abs(n) < 1 << 31 for m in (first, *moves) for n in m), f"{what} has coordinates out of bounds")
        low = at + sum(min(0, (extent - 1) * by) for extent, by in loops)
        high = at + sum(max(0, (extent - 1) * by) for extent, by in loops)
        _need(low >= 0 and high < prod(stored.shape), f"{what} reaches beyond `{stored.name}`")
