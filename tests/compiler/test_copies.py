"""The copies of a layout are compared: each element beyond the one that is read, once, with one that holds the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import product
from typing import TypeAlias

from hypothesis import given, settings

from ckptc.compiler.algebra.compose import Move, compare
from ckptc.compiler.algebra.lower import Lowered, lower
from ckptc.compiler.algebra.pieces import AT, COORDS
from ckptc.compiler.algebra.prove import prove
from ckptc.compiler.settle.resolve import Side

from .made import Made, mappings
from .reference import contents
from .test_algebra import sides

Place: TypeAlias = tuple[tuple[str, str], int]  # file and name, and offset


def pairs(moves: tuple[Move, ...], lowered: tuple[Lowered, ...]) -> Iterator[tuple[Place, Place]]:
    """What moves within one layout compare, one element at a time."""
    for move in moves:
        for index in product(*(range(n) for n, _, _ in move.loops)):
            here, there = list(move.at_source), list(move.at_target)
            for i, (_, a, b) in zip(index, move.loops, strict=True):
                here = [x + i * y for x, y in zip(here, a, strict=True)]
                there = [x + i * y for x, y in zip(there, b, strict=True)]
            yield place(lowered[move.source], here), place(lowered[move.target], there)


def place(item: Lowered, v: list[int]) -> Place:
    at = dict(zip(item.stored.coords, v[COORDS:], strict=True))
    return (item.stored.file.format(**at), item.stored.name.format(**at)), v[AT]


def compared(side: Side, all_copies: bool) -> list[tuple[Place, Place]]:
    lowered = lower(side)
    return list(pairs(compare(lowered, all_copies=all_copies, present=frozenset()), lowered))


@settings(max_examples=100, deadline=None)
@given(mappings())
def test_each_further_copy_is_compared_once(made: Made) -> None:
    for side in sides(made):
        held = {key: values for key, (_, values) in contents(side).items()}
        found = compared(side, all_copies=True)
        for (one, i), (other, j) in found:
            assert held[one][i] == held[other][j] is not None
        read, checked = {one for one, _ in found}, Counter(other for _, other in found)
        assert not read & set(checked)
        assert set(checked.values()) <= {1}
        assert len(checked) == prove(side, lower(side)).copies
        declared = compared(side, all_copies=False)
        assert set(declared) <= set(found)
        assert len(declared) == len(set(declared))
