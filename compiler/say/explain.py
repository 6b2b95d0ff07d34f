"""A plan as text for people: what is proved, what is copied where, and where one tensor's elements go."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import product
from math import prod

from ...runtime.plan.plan import Made, Plan, Side, Step, Stored


def describe(plan: Plan) -> str:
    """The whole plan: layouts, proof, and the copies by kernel class with their run lengths."""
    lines = [
        f"plan    {summary(plan)}",
        "axes    " + "  ".join(f"{n} {v:,}" for n, v in plan.axes),
        "proof   every element of every tensor is stored, and nothing else is:",
        f"        {_proof(plan.source)}",
        f"        {_proof(plan.target, sum(prod(m.shape) for m in plan.made if not m.steps))}",
    ]
    if plan.dtype:
        lines.append(f"cast    floating tensors to {plan.dtype}, where the mapping does not fix a dtype")
    kinds = Counter(s.kernel for s in plan.steps)
    lines.append(f"copies  {len(plan.steps)} steps: " + (", ".join(f"{n} {k}" for k, n in sorted(kinds.items())) or "none"))
    lines += _table([_step_row(plan, s) for s in plan.steps])
    if plan.checks:
        lines.append(f"checks  {len(plan.checks)} steps compare declared copies in the source")
        lines += _table([_check_row(plan, s) for s in plan.checks])
    lines += [f"made    {m.name.partition(':')[2]} {list(m.shape)}{_making(m)}" for m in plan.made]
    if plan.files:
        lines.append("files   " + ", ".join(name for name, _ in plan.files))
    return "\n".join(lines)


def _making(made: Made) -> str:
    return f" in {len(made.steps)} steps" if made.steps else f" = {made.function}({', '.join(map(str, made.args))})"


def summary(plan: Plan) -> str:
    """The conversion in one line."""
    return f"{plan.mapping}: {_side(plan.source)} -> {_side(plan.target)}"


def _side(side: Side) -> str:
    settings = [f"{n} {v}" for n, v in side.ranks if v != 1]
    settings += [n if v is True else f"no {n}" if v is False else f"{n} {v}" for n, v in side.params if n in side.changed]
    return side.layout + (f" ({', '.join(settings)})" if settings else "")


def _proof(side: Side, made: int = 0) -> str:
    """`made`: elements of the model that are calculated, and that the source does not hold."""
    p = side.proof
    text = f"{side.layout}: {p.tensors:,} tensors hold {p.model:,} elements once"
    if made:
        text += f", {made:,} of them calculated"
    if p.copies:
        text += f", {p.copies:,} declared copies"
    if p.padding:
        text += f", {p.padding:,} of padding"
    if side.omitted:
        text += f"; left out on purpose: {', '.join(side.omitted)}"
    if side.met:
        text += f"; dropped on purpose: {_few(f'{count:,} {name}' for name, count in side.met)}"
    return text


def _few(texts: Iterable[str], most: int = 3) -> str:
    every = list(texts)
    return ", ".join(every[:most]) + (f" and {len(every) - most} more names" if len(every) > most else "")


def _table(rows: list[tuple[tuple[str, ...], int]]) -> list[str]:
    """Aligned columns; rows that differ only in how often they run are added up."""
    if not rows:
        return []
    sums: dict[tuple[str, ...], int] = {}
    for row, times in rows:
        sums[row] = sums.get(row, 0) + times
    texts = [(*row[:-1], f"{times:,} times", row[-1]) for row, times in sums.items()]
    widths = [max(len(r[i]) for r in texts) for i in range(len(texts[0]))]
    return ["        " + "  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in texts]


def _step_row(plan: Plan, step: Step) -> tuple[tuple[str, ...], int]:
    target = plan.target.stored[step.target]
    source = plan.source.stored[step.source].name if step.source is not None else "zeros"
    return (source, "->", target.name, step.kernel, _runs(step), step.origin), _times(step)


def _check_row(plan: Plan, step: Step) -> tuple[tuple[str, ...], int]:
    assert step.source is not None
    a, b = plan.source.stored[step.source], plan.source.stored[step.target]
    return (a.name, "==", "its copies" if a is b else b.name, "compare", _runs(step), step.origin), _times(step)


def run_length(step: Step) -> int:
    """Elements in one contiguous run on both sides."""
    if step.kernel == "transpose":
        return 1
    if step.source is None:
        return step.loops[-1].extent if step.loops and step.loops[-1].target == 1 else 1
    return step.loops[-1].extent if step.loops else 1


def _runs(step: Step) -> str:
    total = 1
    for loop in step.loops:
        total *= loop.extent
    run = run_length(step)
    text = f"{total // run:,} x {run:,}"
    if (step.scale, step.shift) != (1.0, 0.0):
        scale = f" * {step.scale:g}" if step.scale != 1.0 else ""
        shift = f" {'-' if step.shift < 0 else '+'} {abs(step.shift):g}" if step.shift else ""
        text += f",{scale}{shift}"
    return text


def _times(step: Step) -> int:
    total = 1
    for over in step.over:
        total *= over.extent
    return total


def explain(plan: Plan, name: str) -> str | None:
    """Where the elements of one tensor go, or come from: rows per rank, for the first of each layer or expert.

    `name` is a stored name of either side, as its pattern or spelled out. None if no tensor is called so.
    """
    out: list[str] = []
    for side, here in ((plan.source, "source"), (plan.target, "target")):
        for i, stored in enumerate(side.stored):
            fixed = _spelled(stored, name)
            if fixed is None:
                continue
            shape = ", ".join(map(str, stored.shape))
            out.append(f"{stored.name} [{shape}] of {side.layout}, {stored.origin}")
            for step in plan.steps:
                if (step.source if here == "source" else step.target) == i:
                    out += _flow(plan, step, here, fixed)
    return "\n".join(out) if out else None


def _spelled(stored: Stored, name: str) -> dict[str, int] | None:
    """The coordinates that a concrete name fixes; {} for the pattern itself; None if it is another tensor."""
    if name == stored.name:
        return {}
    import re

    pattern = re.escape(stored.name)
    for coord in stored.coords:
        pattern = re.sub(r"\\\{" + coord + r"(:0\d+)?\\\}", rf"(?P<{coord}>\\d+)", pattern)
    hit = re.fullmatch(pattern, name)
    return {k: int(v) for k, v in hit.groupdict().items()} if hit else None


def _flow(plan: Plan, step: Step, here: str, fixed: dict[str, int]) -> Iterator[str]:
    target = plan.target.stored[step.target]
    source = plan.source.stored[step.source] if step.source is not None else None
    seen: dict[str, list[str]] = {}
    mine = source if here == "source" else target
    assert mine is not None
    spelled = [i for i, c in enumerate(mine.coords) if "{" + c in mine.name]
    for indices in product(*(range(o.extent) for o in step.over)):
        s, t = list(step.source_first), list(step.target_first)
        sa, ta = step.source_at, step.target_at
        for over, i in zip(step.over, indices, strict=True):
            s = [a + i * b for a, b in zip(s, over.source, strict=True)]
            t = [a + i * b for a, b in zip(t, over.target, strict=True)]
            sa, ta = sa + i * over.source_at, ta + i * over.target_at
        coords = s if here == "source" else t
        wanted = [fixed.get(mine.coords[k], (step.source_first if here == "source" else step.target_first)[k]) for k in spelled]
        if [coords[k] for k in spelled] != wanted:
            continue
        left = f"{_slices(source, step, sa, 0)} of {_place(source, s)}" if source else "zeros"
        seen.setdefault(left, []).append(f"{_slices(target, step, ta, 1)} of {_place(target, t)}")
    for left, rights in seen.items():
        yield f"  {left}"
        yield from (f"    -> {r}" for r in rights)


def _place(stored: Stored | None, coords: list[int]) -> str:
    assert stored is not None
    at = dict(zip(stored.coords, coords, strict=True))
    return stored.name.format(**at) + (f" in {stored.file.format(**at)}" if stored.file else "")


def _slices(stored: Stored | None, step: Step, at: int, side: int) -> str:
    """The box in the stored tensor's own dimensions, like an array slice; strided runs show their bounds."""
    assert stored is not None
    last = at + sum((x.extent - 1) * (x.target if side else x.source) for x in step.loops)
    out = []
    stride = 1
    for n in reversed(stored.shape):
        low, high = at // stride % n, last // stride % n
        out.append(":" if (low, high) == (0, n - 1) else f"{low}:{high + 1}")
        stride *= n
    return "[" + ", ".join(reversed(out)) + "]"
