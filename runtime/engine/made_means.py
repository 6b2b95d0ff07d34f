"""Means that a plan fills up with: worked out from the source when a run begins, in chunks, and kept in the file of made
tensors."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np

from ..binding.bind import Bound, bind
from ..files.window import ITEM_BYTES
from ..kernels.kernels import ITEMS, Array, cast
from ..plan.plan import Made
from .fill import Filler, Sources, buffer
from .schedule import Recipes, budget, chunk_arena, scratch, tiled


def work_out(bound: Bound, memory: int) -> int:
    """Writes the means of `bound` to their places, once; the bytes read for them.

    A mean is summed up in float64 and rounded to the dtype of its tensor.
    """
    if bound.kept is None or bound.kept.complete:
        return 0
    read = 0
    places = {family.stored.name: bound.windows[family.start] for family in bound.sources if len(family.rows)}
    for made in bound.plan.made:
        window = places[made.name]
        if made.steps and window is not None:
            values, spent = _mean(made, bound, memory)
            read += spent
            out = np.empty(values.size, ITEMS[ITEM_BYTES[window.dtype]])
            cast(values.view(np.uint64), out, 0, 0, ((values.size, 1, 1),), ("float64", window.dtype))
            with open(window.path, "r+b") as file:
                os.pwrite(file.fileno(), out.tobytes(), window.at)
    bound.kept.complete = True
    return read


def _mean(made: Made, bound: Bound, memory: int) -> tuple[Array, int]:
    target = replace(bound.plan.target, format="pt", stored=(made.whole,), objects=(), carry=())
    whole = bind(replace(bound.plan, target=target, steps=made.steps, checks=(), files=()), bound.checkpoint, dtype="float64")
    limits = budget(memory, 1, scratch(whole), tiled(whole))
    job = Recipes(whole, limits).job([0])
    sources = Sources()
    total = np.zeros(whole.targets[0].elements // made.rows)
    try:
        filler = Filler(sources, min(limits.arena, chunk_arena(job.recipe)), made.steps, None)
        into = buffer(job.recipe.buffer_bytes)
        for number in range(job.recipe.chunks):
            chunk = job.recipe.piece(number)
            filler.fill(job, chunk, into, into.data, 0)
            ((at, size, start),) = chunk.parts
            _add(total, into[at : at + size].view(np.float64), start // 8)
    finally:
        sources.close()
    return total / made.rows, filler.bytes_read


def _add(total: Array, values: Array, start: int) -> None:
    """Adds up rows that lie one after the other, of which `values` is the part from element `start`."""
    width, begin = len(total), start % len(total)
    head = min(len(values), width - begin) if begin else 0
    total[begin : begin + head] += values[:head]
    rows = (len(values) - head) // width
    total += values[head : head + rows * width].reshape(rows, width).sum(axis=0)
    tail = values[head + rows * width :]
    total[: len(tail)] += tail
