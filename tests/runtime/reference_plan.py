"""What a plan means, slowly: for every instance and every loop index, target[...] = source[...]."""

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ckptc.runtime.plan.plan import Plan, Step, Stored

Key = tuple[int, tuple[int, ...]]  # (number in Side.stored, coordinates)


def coords(stored: Stored) -> Iterator[tuple[int, ...]]:
    for box in stored.boxes:
        for turn in itertools.product(*(range(extent) for extent, _ in box.loops)):
            moved = list(box.first)
            for i, (_, strides) in zip(turn, box.loops, strict=True):
                moved = [c + i * s for c, s in zip(moved, strides, strict=True)]
            yield tuple(moved)


def copies(step: Step) -> Iterator[tuple[tuple[int, ...], int, tuple[int, ...], int]]:
    """(source coords, source element, target coords, target element) of every element of every instance."""
    for turn in itertools.product(*(range(o.extent) for o in step.over)):
        source, target, source_at, target_at = list(step.source_first), list(step.target_first), step.source_at, step.target_at
        for i, o in zip(turn, step.over, strict=True):
            source = [c + i * s for c, s in zip(source, o.source, strict=True)] if step.source is not None else []
            target = [c + i * s for c, s in zip(target, o.target, strict=True)]
            source_at, target_at = source_at + i * o.source_at, target_at + i * o.target_at
        for index in itertools.product(*(range(loop.extent) for loop in step.loops)):
            yield (
                tuple(source),
                source_at + sum(i * loop.source for i, loop in zip(index, step.loops, strict=True)),
                tuple(target),
                target_at + sum(i * loop.target for i, loop in zip(index, step.loops, strict=True)),
            )


def execute(plan: Plan, source: dict[Key, Any], turn: Callable[[Any, Step], Any] = lambda x, step: x) -> dict[Key, Any]:
    """The target tensors, flat; `turn` is the arithmetic of a step on one element."""
    out: dict[Key, Any] = {}
    for number, stored in enumerate(plan.target.stored):
        for place in coords(stored):
            out[number, place] = [None] * int(np.prod(stored.shape, dtype=int))
    for step in plan.steps:
        for from_, s, to, t in copies(step):
            assert out[step.target, to][t] is None, "filled twice"
            out[step.target, to][t] = 0 if step.source is None else turn(source[step.source, from_][s], step)
    return out
