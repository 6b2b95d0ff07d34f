"""A plan run element by element on lists, to see what its steps mean."""

from __future__ import annotations

from itertools import product

from ckptc.runtime.plan.plan import Plan, Side

UNWRITTEN = object()


def tensors_of(side: Side) -> dict[tuple[str, str], tuple[int, ...]]:
    """(file, name) -> shape of every stored tensor."""
    out = {}
    for stored in side.stored:
        for box in stored.boxes:
            for index in product(*(range(n) for n, _ in box.loops)):
                coords = list(box.first)
                for i, (_, move) in zip(index, box.loops, strict=True):
                    coords = [c + i * m for c, m in zip(coords, move, strict=True)]
                at = dict(zip(stored.coords, coords, strict=True))
                key = (stored.file.format(**at), stored.name.format(**at))
                assert key not in out, f"{key} is listed twice"
                out[key] = stored.shape
    return out


def run_slowly(plan: Plan, source: dict[tuple[str, str], list]) -> dict[tuple[str, str], list]:
    """Fill every target element once; raises if one is filled twice or never."""
    target = {}
    for key, shape in tensors_of(plan.target).items():
        size = 1
        for n in shape:
            size *= n
        target[key] = [UNWRITTEN] * size
    for step in plan.steps:
        to = plan.target.stored[step.target]
        of = plan.source.stored[step.source] if step.source is not None else None
        for index in product(*(range(o.extent) for o in step.over)):
            s, t, sa, ta = list(step.source_first), list(step.target_first), step.source_at, step.target_at
            for i, o in zip(index, step.over, strict=True):
                s = [a + i * b for a, b in zip(s, o.source, strict=True)]
                t = [a + i * b for a, b in zip(t, o.target, strict=True)]
                sa, ta = sa + i * o.source_at, ta + i * o.target_at
            at = dict(zip(to.coords, t, strict=True))
            out = target[to.file.format(**at), to.name.format(**at)]
            if of is not None:
                at = dict(zip(of.coords, s, strict=True))
                read = source[of.file.format(**at), of.name.format(**at)]
            for inner in product(*(range(x.extent) for x in step.loops)):
                p = ta + sum(i * x.target for i, x in zip(inner, step.loops, strict=True))
                assert out[p] is UNWRITTEN, "an element is filled twice"
                q = sa + sum(i * x.source for i, x in zip(inner, step.loops, strict=True))
                out[p] = read[q] if of is not None else None
    assert not any(x is UNWRITTEN for values in target.values() for x in values), "an element is never filled"
    return target
