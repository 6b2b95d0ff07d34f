"""How the numbers of a layout's ranks are made: of themselves, or of parts that several ranks may share.

    axis tp = (rest meet etp) with meet = gcd(tp / etp, ep)
    axis ep = (groups meet)

Each part is a digit. A step of `meet` is a step of both ranks at once, so that of their numbers only those exist together
that agree in it. What is sliced by a rank is sliced by its digits, the outermost first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod

from ...dsl.tree import Refine
from ..values.scope import Scope, holds
from .refine import Part, split


@dataclass(frozen=True)
class Digit:
    """`extent` steps, of which each moves the number of every rank in `moves` by so much."""

    name: str
    extent: int
    moves: tuple[tuple[str, int], ...]


Digits = tuple[Digit, ...]


def rank_digits(refinements: Iterable[Refine], ranks: Mapping[str, int], scope: Scope) -> dict[str, Digits]:
    """Of each rank that is refined its digits, the outermost first, and of each of their names that digit.

    A part that another rank has is as large here as there; one that has the name of a parameter is as large as that says.
    """
    extents: dict[str, int] = {}
    moves: dict[str, dict[str, int]] = {}
    names: dict[str, tuple[str, ...]] = {}
    for refine in refinements:
        if refine.axis in ranks and holds(refine.when, scope):
            known = {n: v for n in refine.parts if type(v := extents.get(n, scope.names.get(n))) is int}
            for name, part in split(refine, Part(refine.axis, ranks[refine.axis], 1), scope, known, "").items():
                extents[name] = part.extent
                moves.setdefault(name, {})[refine.axis] = part.step
            names[refine.axis] = refine.parts
    digits = {name: Digit(name, extents[name], tuple(by_rank.items())) for name, by_rank in moves.items()}
    return {rank: tuple(digits[part] for part in parts) for rank, parts in names.items()} | {n: (d,) for n, d in digits.items()}


def plain(rank: str, degree: int) -> Digits:
    """A rank that is not refined: one digit, its own number."""
    return (Digit(rank, degree, ((rank, 1),)),)


def degree(digits: Digits) -> int:
    return prod(d.extent for d in digits)
