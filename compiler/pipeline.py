"""Two resolved layouts to a plan, pass by pass: `PASSES` is the list of them, and `Work` what they hand on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from ..dsl.diagnostic import Diagnostic, Label, MappingError
from ..dsl.tree import Hole, Pattern
from ..runtime.plan.plan import Made, Plan, Proof, made_name
from ..runtime.plan.plan import Side as PlanSide
from .algebra.compose import compare, compose
from .algebra.lower import Lowered, MeanTensor, lower, lower_made, lower_whole, means
from .algebra.optimise import optimise
from .algebra.prove import prove
from .algebra.spell import check_spelled, format_of
from .identify.match import Found, regex, representatives
from .settle.resolve import Side
from .values.pick import Picked, runs
from .values.scope import LARGEST, whole_number, whole_value
from .work import Work


@dataclass(frozen=True)
class Compiled:
    """A plan and the sides that it was made from, for printing."""

    plan: Plan
    source: Side
    target: Side


def compile_sides(
    source: Side,
    target: Side,
    *,
    found: Sequence[Found] = (),
    compare_all: bool = False,
    dtype: str | None = None,
    files: tuple[tuple[str, str], ...] = (),
) -> Compiled:
    """Two resolved layouts to a proved plan. Raises `MappingError` where there is no proof.

    `found` (the source's headers) tells which aliases of tied tensors are there to be compared. Where the environment has
    `CKPTC_LAWS=1`, what must hold after each pass is checked (see `laws`).
    """
    work = Work(source, target, found, compare_all, dtype, files)
    for run in PASSES:
        work = run(work)
        if os.environ.get("CKPTC_LAWS") == "1":
            from .laws import check_laws

            check_laws(run.__name__, work)
    assert work.plan is not None
    return Compiled(work.plan, source, target)


def lowered(work: Work) -> Work:
    """Both layouts as pieces: boxes of model elements, and where each of them is stored."""
    target = work.target
    if target.read_only:
        raise MappingError(Diagnostic("read-only", f"layout `{target.layout}` is read, and not written", (Label(target.span),), help="convert to another: `ckptc list` names them"))
    left = lower(work.source) + tuple(lower_made(m) for m in target.made)
    right = tuple(x for x in lower(target) if not x.rule.tied)
    averaged = means(right, target)
    return replace(work, left=left + tuple(lower_whole(m.tensor, made_name(m.tensor.name), m.span) for m in averaged), right=right, means=averaged)


def proved(work: Work) -> Work:
    """Each layout by itself holds each element of the model, and nothing else."""
    return replace(work, proofs=(prove(work.source, work.left), prove(work.target, work.right)))


def composed(work: Work) -> Work:
    """Which elements go from where to where."""
    compared = compare(work.left, all_copies=work.compare_all, present=_present(work.left, work.found))
    return replace(work, moves=compose(work.left, work.right), compared=compared)


def optimised(work: Work) -> Work:
    """The same in as few loops as the layouts allow."""
    return replace(work, steps=optimise(work.moves, work.left, work.right), checks=optimise(work.compared, work.left, work.left))


def planned(work: Work) -> Work:
    """The plan, which knows nothing of mappings any more."""
    source, target, stored = work.source, work.target, work.left[: len(work.left) - len(work.means)]
    made = tuple(Made(made_name(m.tensor.name), m.tensor.shape, m.function, m.args) for m in target.made)
    plan = Plan(
        source.family,
        replace(_plan_side(source, work.left, work.proofs[0]), met=_met(source, work.found)),
        _plan_side(target, work.right, work.proofs[1]),
        work.steps,
        work.checks,
        (*work.files, *target.texts),
        work.dtype,
        _axes(source, target),
        (*made, *(_mean(m, stored) for m in work.means)),
    )
    return replace(work, plan=plan)


PASSES: tuple[Callable[[Work], Work], ...] = (lowered, proved, composed, optimised, planned)


def _axes(source: Side, target: Side) -> tuple[tuple[str, int], ...]:
    """The axes of the tensors that there are, and their sizes."""
    used = {axis for side in (source, target) for tensor in side.sizes.tensors.values() for axis in tensor.axes}
    return tuple((name, size) for name, size in source.sizes.values.items() if name in used)


def _met(source: Side, found: Sequence[Found]) -> tuple[tuple[str, int], ...]:
    """How many tensors of the checkpoint each name that is ignored stands for, where it stands for any."""
    names = {each.name for each in found}
    counts = ((_readable(pattern), sum(map(bool, map(regex(pattern).fullmatch, names)))) for pattern in source.ignored)
    return tuple((name, count) for name, count in counts if count)


def _readable(pattern: Pattern) -> str:
    return "".join(p if isinstance(p, str) else "{" + p.axis + "}" for p in pattern.parts)


def _present(lowered: tuple[Lowered, ...], found: Sequence[Found]) -> frozenset[int]:
    names = representatives(found).values()
    return frozenset(
        i for i, x in enumerate(lowered) if x.rule.tied and any(regex(p).fullmatch(n) for p in x.rule.rule.names for n in names)
    )


def _mean(mean: MeanTensor, left: tuple[Lowered, ...]) -> Made:
    """How a mean is calculated: the steps that bring its tensor together, the averaged axis first."""
    whole = (lower_whole(mean.of, mean.of.name, mean.span),)
    return Made(made_name(mean.tensor.name), mean.tensor.shape, "mean", (), optimise(compose(left, whole), left, whole), mean.of.shape[0])


def _objects(pattern: Pattern, picked: Picked, side: Side) -> list[tuple[str, tuple[tuple[str, int, int], ...]]]:
    """An object's name for `str.format`, and of each axis that it spells the first number and the extent: one for each run
    of the indices that are picked."""
    holes = {part.axis: part for part in pattern.parts if isinstance(part, Hole)}
    extents = {**side.sizes.values, **side.ranks, **side.turns}
    axes: list[list[tuple[str, int, int]]] = [[]]
    chosen = dict(picked)
    for name, hole in holes.items():
        first = whole_number(hole.offset, side.scope, f"the offset of `{name}`", -LARGEST) if hole.offset is not None else 0
        own = [(first, whole_value(extents.get(name), f"axis `{name}`", hole.span))]
        if name in chosen:
            own = [(first + at + i * step, n if step == 1 else 1) for at, n, step in runs(chosen[name]) for i in range(1 if step == 1 else n)]
        check_spelled(hole, min(least for least, _ in own))
        axes = [[*each, (name, *one)] for each in axes for one in own]
    return [(format_of(pattern), tuple(each)) for each in axes]


def _plan_side(side: Side, lowered: tuple[Lowered, ...], proof: Proof) -> PlanSide:
    params = tuple((k, v) for k, v in side.params.items())
    ignored = tuple(map(_readable, side.ignored))
    objects = tuple(each for pattern, picked in side.objects for each in _objects(pattern, picked, side))
    return PlanSide(
        side.layout, side.format, tuple(side.ranks.items()), params, tuple(x.stored for x in lowered), proof, ignored, side.carry,
        side.changed, side.omitted, objects, tuple(_bare(side, lowered)),
    )  # fmt: skip


def _bare(side: Side, lowered: tuple[Lowered, ...]) -> Iterator[str]:
    """The files of stages that no tensor is in."""
    stages, pattern = side.stages, next(iter(side.files), None)
    spelled = [p.axis for p in pattern.parts if isinstance(p, Hole)] if pattern else []
    if stages is None or pattern is None or stages.rank not in spelled or all(stages.owned):
        return
    holding: set[int] = set()
    for stored in (item.stored for item in lowered):
        slot = stored.coords.index(stages.rank)
        for box in stored.boxes:
            numbers = {box.first[slot]}
            for n, move in box.loops:
                numbers = {at + i * move[slot] for at in numbers for i in range(n if move[slot] else 1)}
            holding |= numbers
    digits = list(dict.fromkeys(d for rank in spelled for d in side.digits(rank)))
    for steps in product(*(range(d.extent) for d in digits)):
        at = dict.fromkeys(spelled, 0)
        for digit, step in zip(digits, steps, strict=True):
            for rank, by in digit.moves:
                if rank in at:
                    at[rank] += step * by
        if at[stages.rank] not in holding:
            yield format_of(pattern).format(**at)


