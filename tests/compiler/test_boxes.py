"""The arithmetic on boxes, against listing their elements: digits meet, pieces are cut into blocks and at the end of an axis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptc.compiler.algebra.digits import Digit, TooIrregularError, Vector, by_step, meet, nested, overlap, span
from ckptc.compiler.algebra.pieces import AT, Loop, Piece, bounded, sliced

Pairs = list[tuple[Vector, Vector]]

steps = st.one_of(st.integers(1, 13), st.sampled_from([1, 2, 3, 4, 6, 8, 12, 24, 36]))


@st.composite
def systems(draw) -> tuple[Digit, ...]:
    """Digits whose places are the indices themselves."""
    found = by_step((draw(st.integers(2, 7)), draw(steps), ()) for _ in range(draw(st.integers(0, 3))))
    return tuple((n, step, tuple(int(i == k) for i in range(len(found)))) for k, (n, step, _) in enumerate(found))


def indices(digits: tuple[Digit, ...]) -> Iterator[Vector]:
    return product(*(range(n) for n, _, _ in digits))


def point(index: Vector, digits: tuple[Digit, ...]) -> int:
    return sum(i * step for i, (_, step, _) in zip(index, digits, strict=True))


@settings(max_examples=300, deadline=None)
@given(systems(), systems(), st.integers(-40, 40))
def test_where_digits_meet_is_where_their_points_are_equal(left: tuple[Digit, ...], right: tuple[Digit, ...], shift: int) -> None:
    found: Pairs = []
    for here, there, loops in meet(shift, left, right, (0,) * len(left), (0,) * len(right)):
        assert all(n > 1 for n, _, _ in loops)
        for index in product(*(range(n) for n, _, _ in loops)):
            found.append((
                tuple(x + sum(i * a[k] for i, (_, a, _) in zip(index, loops, strict=True)) for k, x in enumerate(here)),
                tuple(x + sum(i * b[k] for i, (_, _, b) in zip(index, loops, strict=True)) for k, x in enumerate(there)),
            ))  # fmt: skip
    wanted = [(i, j) for i in indices(left) for j in indices(right) if point(i, left) == shift + point(j, right)]
    assert Counter(found) == Counter(wanted)
    assert overlap(shift, *(tuple((n, step, ()) for n, step, _ in digits) for digits in (left, right))) == len(wanted)


@settings(max_examples=200, deadline=None)
@given(systems())
def test_digits_are_nested_where_their_points_only_go_forwards(digits: tuple[Digit, ...]) -> None:
    points = [point(index, digits) for index in indices(digits)]
    assert nested(digits) == all(a < b for a, b in pairwise(points))
    assert span(digits) == max(points)


def test_digits_meet_in_few_boxes_whatever_their_extents() -> None:
    """A whole line here and there; ranks of 4 here and of 6 there; pairs here and a whole line there, also out of phase."""
    big = 2**20
    zeros = (0,), (0,)
    assert len(list(meet(0, ((12 * big, 1, (1,)),), ((12 * big, 1, (1,)),), *zeros))) == 1
    four, six = ((4, 3 * big, (1,)), (3 * big, 1, (0,))), ((6, 2 * big, (1,)), (2 * big, 1, (0,)))
    assert len(list(meet(0, four, six, *zeros))) == 8
    halves = ((big, 2, (1,)), (2, 1, (0,)))
    assert len(list(meet(0, halves, ((2 * big, 1, (1,)),), *zeros))) == 1
    assert len(list(meet(1, halves, ((2 * big, 1, (1,)),), *zeros))) == 2


def test_digits_that_meet_in_too_many_boxes_are_refused() -> None:
    with pytest.raises(TooIrregularError):
        overlap(0, ((10**6, 3, ()), (2, 1, ())), ((10**6, 2, ()), (2, 1, ())))


@st.composite
def pieces(draw) -> Piece:
    """Of an axis x and copies, at places of an offset, a copy number, and a rank."""
    loops = []
    for _ in range(draw(st.integers(0, 3))):
        axis = draw(st.sampled_from(["x", "x", None]))
        move = (draw(st.one_of(st.just(0), steps)), 0 if axis else draw(st.integers(0, 1)), draw(st.integers(0, 1)))
        loops.append(Loop(draw(st.integers(1, 7)), axis, draw(steps) if axis else 0, move))
    return Piece("t", (("x", draw(st.integers(0, 5))),), (draw(st.integers(0, 20)), 0, draw(st.integers(0, 2))), tuple(loops))


def elements(piece: Piece) -> Iterator[tuple[str | None, int, Vector]]:
    """What is filled from, the index on the axis x, and the place."""
    for index in product(*(range(x.extent) for x in piece.loops)):
        at = piece.index("x") + sum(i * loop.step for i, loop in zip(index, piece.loops, strict=True))
        place = tuple(x + sum(i * loop.move[k] for i, loop in zip(index, piece.loops, strict=True)) for k, x in enumerate(piece.base))
        yield piece.tensor, at, place


@settings(max_examples=300, deadline=None)
@given(pieces(), st.sampled_from([1, 2, 3, 4, 5, 6, 8, 12, 16, 24]))
def test_a_slice_moves_each_element_to_its_block_s_rank(piece: Piece, block: int) -> None:
    wanted = Counter((t, at, (place[AT] % block, place[1], place[2] + 10 * (place[AT] // block))) for t, at, place in elements(piece))
    assert Counter(x for part in sliced(piece, block, (0, 0, 10)) for x in elements(part)) == wanted


@pytest.mark.parametrize(
    ("loops", "base", "block", "parts"),
    [
        ([(12, 1)], 0, 4, 1), ([(12, 1)], 0, 6, 1), ([(12, 1)], 0, 12, 1), ([(12, 1)], 0, 5, 2), ([(12, 1)], 2, 4, 3), ([(3, 8), (4, 2)], 0, 4, 1),
        ([(3, 8), (4, 2)], 0, 8, 1), ([(3, 8), (4, 2)], 0, 24, 1), ([(4, 3)], 0, 6, 1), ([(4, 3)], 1, 6, 1), ([(5, 4), (4, 1)], 0, 8, 2), ([(7, 1)], 7, 7, 1),
    ],
)  # fmt: skip
def test_a_slice_cuts_no_more_than_it_must(loops: list[tuple[int, int]], base: int, block: int, parts: int) -> None:
    piece = Piece("t", (("x", 0),), (base, 0, 0), tuple(Loop(n, "x", step, (step, 0, 0)) for n, step in loops))
    assert len(list(sliced(piece, block, (0, 0, 1)))) == parts


@settings(max_examples=300, deadline=None)
@given(pieces(), st.integers(0, 30))
def test_what_lies_beyond_the_end_of_an_axis_becomes_zeros(piece: Piece, limit: int) -> None:
    found = Counter((t, at if t else None, place) for part in bounded(piece, "x", limit) for t, at, place in elements(part))
    assert found == Counter((t if at < limit else None, at if at < limit else None, place) for t, at, place in elements(piece))
