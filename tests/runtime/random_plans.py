"""Random plans: model tensors that are cut, permuted and spread over families, instances, ranks and dtypes."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from ckptc.runtime.plan.plan import Box, Loop, Over, Plan, Proof, Side, Step, Stored

NONE = Proof(0, 0, 0, 0, 0)


def strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    out, run = [], 1
    for extent in reversed(shape):
        out.append(run)
        run *= extent
    return tuple(reversed(out))


def side(stored: tuple[Stored, ...], format: str = "safetensors") -> Side:
    return Side("layout", format, (), (), stored, NONE)


def box(extents: tuple[int, ...]) -> Box:
    loops = tuple(
        (extent, tuple(int(k == j) for j in range(len(extents)))) for k, extent in enumerate(extents)
    )
    return Box((0,) * len(extents), loops)


@dataclass
class Drawn:
    plan: Plan
    dtypes: list[str]  # of the source families


@st.composite
def plans(draw: Any, dtypes: tuple[str, ...] = ("uint16",)) -> Drawn:
    """Each model tensor has axes [layer, rank, a, b, ...]; the target permutes its own axes and cuts `a` by rank,
    the source keeps them together; then two of them may share one target, with padding between."""
    layers = draw(st.integers(1, 3))
    ranks = draw(st.integers(1, 3))
    source: list[Stored] = []
    target: list[Stored] = []
    steps: list[Step] = []
    kinds: list[str] = []
    for number in range(draw(st.integers(1, 3))):
        axes = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=4)))
        cut = draw(st.integers(0, len(axes) - 1))
        replicated = draw(st.booleans())
        whole = axes if replicated else (*axes[:cut], axes[cut] * ranks, *axes[cut + 1 :])
        order = draw(st.permutations(range(len(axes))))
        pad = draw(st.integers(0, 5))
        lead = draw(st.integers(0, 3))  # elements of the source before the tensor, never read
        parts = draw(st.integers(1, 2))  # source tensors side by side in one target
        mixed = order if draw(st.booleans()) else range(len(axes))
        by_source = strides(whole)
        shape = tuple(axes[k] for k in mixed)
        by_target = dict(zip(mixed, strides(shape), strict=True))
        size = math.prod(axes)
        flip = draw(st.booleans())
        scale, shift = draw(st.sampled_from([(1.0, 0.0), (1.0, 0.0), (2.0, 1.0)])) if "float32" in dtypes else (1.0, 0.0)
        dtype = draw(st.sampled_from(dtypes))
        for part in range(parts):
            source.append(Stored(f"s{number}.{part}.{{layer}}", "", ("layer",), (box((layers,)),), (lead + math.prod(whole),)))
            kinds.append(dtype)
        own = draw(st.sampled_from(dtypes)) if draw(st.booleans()) else None
        target.append(
            Stored(
                f"t{number}.{{layer}}", "r{tp:02}/w.pt", ("tp", "layer") if flip else ("layer", "tp"),
                (box((ranks, layers) if flip else (layers, ranks)),), (parts * size + pad,), number % 2, own,
            )
        )  # fmt: skip
        axis_loops = [Loop(axes[k], by_source[k], by_target[k]) for k in range(len(axes)) if axes[k] > 1]
        axis_loops.sort(key=lambda loop: -loop.target)
        def at(layer: int, tp: int, flip: bool = flip) -> tuple[int, int]:
            return (tp, layer) if flip else (layer, tp)
        over = (
            Over(layers, (1,), at(1, 0)),
            Over(ranks, (0,), at(0, 1), 0 if replicated else axes[cut] * by_source[cut]),
        )
        for part in range(parts):
            steps.append(
                Step(len(source) - parts + part, len(target) - 1, (0,), (0, 0), over, lead, part * size,
                     tuple(axis_loops), "rows", scale, shift)
            )  # fmt: skip
        if pad:
            loops = (Loop(pad, 0, 1),) if pad > 1 else ()
            fills = (Over(layers, (), at(1, 0)), Over(ranks, (), at(0, 1)))
            steps.append(Step(None, len(target) - 1, (), (0, 0), fills, 0, parts * size, loops, "fill"))
    steps = list(draw(st.permutations(steps)))
    return Drawn(Plan("m", side(tuple(source)), side(tuple(target), "pt"), tuple(steps)), kinds)


def all_coords(extents: tuple[int, ...]) -> list[tuple[int, ...]]:
    return list(itertools.product(*(range(e) for e in extents)))
