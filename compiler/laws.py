"""A conversion between two passes in; nothing, or a `BrokenLawError`, out: what must hold after each pass, whatever the mapping.

Users meet faults of mappings, which passes report. A law that is broken is a fault of a pass. Laws are checked where the
environment has `CKPTC_LAWS=1`, as it has in the tests. They are arithmetic on boxes, as the proof is, and look at no element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from fractions import Fraction
from math import prod
from operator import add
from typing import Any, TypeAlias

from ..runtime.plan.check_plan import check_plan
from ..runtime.plan.plan import Step
from ..runtime.plan.plan_file import dump_plan, parse_plan
from .algebra.compose import Move
from .algebra.digits import TooIrregularError, Vector
from .algebra.pieces import AT, COORDS, Loop, Piece
from .algebra.prove import tiling_faults
from .work import Work

Which: TypeAlias = tuple[int | None, int, float, float]  # source, target, scale, shift
Sums: TypeAlias = tuple[Fraction, ...]


class BrokenLawError(AssertionError):
    """A pass has made something that cannot be right."""


def check_laws(after: str, work: Work) -> None:
    """Raises `BrokenLawError` if a law does not hold after the pass of this name."""
    if broken := [sentence for law in LAWS[after] for sentence in law(work)]:
        raise BrokenLawError(f"after `{after}`, {work.source.layout} to {work.target.layout}: {'; '.join(broken[:5])}")


def _places_have_all_coordinates(work: Work) -> Iterator[str]:
    for item in (*work.left, *work.right):
        wanted = COORDS + len(item.stored.coords)
        if any(len(v) != wanted for piece in item.pieces for v in (piece.base, *(x.move for x in piece.loops))):
            yield f"`{item.stored.name}` has a place without all of its coordinates"


def _proofs_add_up(work: Work) -> Iterator[str]:
    # what no file holds is among what the source stores
    made = sum(prod(each.tensor.shape) for each in work.target.made) + sum(prod(each.tensor.shape) for each in work.means)
    for side, proof, more in zip((work.source, work.target), work.proofs, (made, 0), strict=True):
        if proof.stored != proof.model + proof.copies + proof.padding + more:
            yield f"`{side.layout}` holds {proof.stored:,} elements, which are not {proof.model:,} and {proof.copies:,} copies and {proof.padding:,} of padding"


def _moves_fill_each_tensor_once(work: Work) -> Iterator[str]:
    """They tile the tensors of the target, as the pieces of its rules do."""
    pieces: dict[int, list[Piece]] = {i: [] for i in range(len(work.right))}
    for move in work.moves:
        pieces[move.target].append(Piece(None, (), move.at_target, tuple(Loop(n, None, 0, b) for n, _, b in move.loops if n > 1)))
    for i, item in enumerate(work.right):
        try:
            faults = tiling_faults(replace(item, pieces=tuple(pieces[i])))
        except TooIrregularError:
            continue
        yield from (fault.title for fault in faults)


def _steps_do_what_moves_do(work: Work) -> Iterator[str]:
    """As many elements go from each family to each, with the same sums of places here, there, and of their products."""
    for moves, steps in ((work.moves, work.steps), (work.compared, work.checks)):
        meant, done = _sums(map(_of_move, moves)), _sums(map(_of_step, steps))
        for which in dict.fromkeys((*meant, *done)):
            if meant.get(which) != done.get(which):
                yield f"steps from `{which[0]}` to `{which[1]}` do not copy what the moves do"


def _sums(boxes: Iterable[tuple[Which, Vector, Vector, list[tuple[int, Vector, Vector]]]]) -> Mapping[Which, Sums]:
    """For each pair of families the number of elements, the sums of each slot of both places, and the sums of the products of
    each slot here with each there. A box's loops are independent of each other, so that its sums follow from their extents."""
    found: dict[Which, Sums] = {}
    for which, at_source, at_target, loops in boxes:
        count = prod(n for n, _, _ in loops)
        here, there = _means(at_source, [(n, a) for n, a, _ in loops]), _means(at_target, [(n, b) for n, _, b in loops])
        products = [
            x * y + sum(Fraction((n * n - 1) * a[i] * b[j], 12) for n, a, b in loops) for i, x in enumerate(here) for j, y in enumerate(there)
        ]
        sums = tuple(count * value for value in (Fraction(1), *here, *there, *products))
        found[which] = tuple(map(add, found[which], sums)) if which in found else sums
    return found


def _means(base: Vector, loops: Iterable[tuple[int, Vector]]) -> list[Fraction]:
    loops = list(loops)
    return [Fraction(at) + sum(Fraction((n - 1) * move[k], 2) for n, move in loops) for k, at in enumerate(base)]


def _of_move(move: Move) -> tuple[Which, Vector, Vector, list[tuple[int, Vector, Vector]]]:
    def place(v: Vector) -> Vector:
        return (v[AT], *v[COORDS:]) if v else ()

    loops = [(n, place(a) or (0,) * len(place(move.at_source)), place(b)) for n, a, b in move.loops]
    return (move.source, move.target, move.scale, move.shift), place(move.at_source), place(move.at_target), loops


def _of_step(step: Step) -> tuple[Which, Vector, Vector, list[tuple[int, Vector, Vector]]]:
    read = step.source is not None
    source = (step.source_at, *step.source_first) if read else ()
    loops: list[tuple[int, Vector, Vector]] = [(o.extent, (o.source_at, *o.source) if read else (), (o.target_at, *o.target)) for o in step.over]
    still = (0,) * len(step.source_first), (0,) * len(step.target_first)
    loops += [(x.extent, (x.source, *still[0]) if read else (), (x.target, *still[1])) for x in step.loops]
    return (step.source, step.target, step.scale, step.shift), source, (step.target_at, *step.target_first), loops


def _a_plan_is_what_its_file_says(work: Work) -> Iterator[str]:
    assert work.plan is not None
    check_plan(work.plan)
    if parse_plan(dump_plan(work.plan)) != work.plan:
        yield "the plan is another one when it was saved and loaded"


Law: TypeAlias = Callable[[Any], Iterator[str]]
LAWS: Mapping[str, tuple[Law, ...]] = {
    "lowered": (_places_have_all_coordinates,),
    "proved": (_proofs_add_up,),
    "composed": (_moves_fill_each_tensor_once,),
    "optimised": (_steps_do_what_moves_do,),
    "planned": (_a_plan_is_what_its_file_says,),
}
