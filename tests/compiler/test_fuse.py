"""Moves at regular distances are one move with a loop, and loops that continue each other are one loop."""

from __future__ import annotations

import pytest

from ckptc.compiler.algebra.compose import Move
from ckptc.compiler.algebra.optimise import NEAR, _kernel, coalesce, fuse
from ckptc.runtime.plan.plan import Loop

INNER = (4, (2, 0, 0), (1, 0, 0))


def move(at_source: int, at_target: int, **more) -> Move:
    return Move(0, 0, (at_source, 0, 0), (at_target, 0, 0), (INNER,), **more)


@pytest.mark.parametrize("number", [2, 3, 5, NEAR + 7])
@pytest.mark.parametrize("distance", [(8, 4), (0, 4), (1, 16), (8, 0)])
def test_moves_at_one_distance_are_one_move_with_a_loop_more(number: int, distance: tuple[int, int]) -> None:
    ds, dt = distance
    moves = [move(3 + i * ds, 5 + i * dt) for i in range(number)]
    whole = Move(0, 0, (3, 0, 0), (5, 0, 0), ((number, (ds, 0, 0), (dt, 0, 0)), INNER))
    assert fuse(tuple(moves)) == fuse(tuple(reversed(moves))) == (whole,)


def test_runs_of_runs_are_one_move() -> None:
    (found,) = fuse(tuple(move(100 * i + 7 * j, 60 * j + 4 * i) for i in range(5) for j in range(3)))
    assert sorted(found.loops) == sorted([INNER, (5, (100, 0, 0), (4, 0, 0)), (3, (7, 0, 0), (60, 0, 0))])


def test_the_longest_run_is_taken_first() -> None:
    """The second move is nearer and begins a run of two; the run of four is the better one."""
    long = [move(10 * i, 40 * i) for i in range(4)]
    odd = move(1, 3)
    assert fuse((*long, odd)) == (Move(0, 0, (0, 0, 0), (0, 0, 0), ((4, (10, 0, 0), (40, 0, 0)), INNER)), odd)


def test_moves_are_only_joined_where_both_sides_go_forwards() -> None:
    moves = (move(20, 0), move(10, 4), move(0, 8))
    assert fuse(moves) == moves


@pytest.mark.parametrize("other", [{"scale": 2.0}, {"shift": 1.0}])
def test_moves_that_scale_otherwise_stay_apart(other: dict[str, float]) -> None:
    moves = (move(0, 0), move(8, 4, **other))
    assert fuse(moves) == moves


@pytest.mark.parametrize(
    ("loops", "expected"),
    [
        ([Loop(3, 8, 4), Loop(4, 2, 1)], [Loop(12, 2, 1)]),
        ([Loop(4, 2, 1), Loop(3, 8, 4)], [Loop(12, 2, 1)]),  # in any order
        ([Loop(2, 24, 12), Loop(3, 8, 4), Loop(4, 2, 1)], [Loop(24, 2, 1)]),
        ([Loop(3, 9, 4), Loop(4, 2, 1)], [Loop(3, 9, 4), Loop(4, 2, 1)]),  # the source does not go on
        ([Loop(3, 8, 5), Loop(4, 2, 1)], [Loop(3, 8, 5), Loop(4, 2, 1)]),  # the target does not
        ([Loop(3, 8, 4), Loop(1, 5, 5), Loop(4, 2, 1)], [Loop(12, 2, 1)]),  # one iteration is none
        ([Loop(3, 0, 4), Loop(4, 0, 1)], [Loop(12, 0, 1)]),
        ([Loop(3, 1, 4), Loop(2, 6, 4)], [Loop(2, 6, 4), Loop(3, 1, 4)]),  # the larger source stride first
        ([], []),
    ],
)
def test_loops_that_continue_each_other_are_one(loops: list[Loop], expected: list[Loop]) -> None:
    assert list(coalesce(loops)) == expected


@pytest.mark.parametrize(
    ("source", "loops", "kernel"),
    [
        (None, (Loop(3, 0, 1),), "fill"), (0, (), "range"), (0, (Loop(3, 1, 1),), "range"), (0, (Loop(3, 2, 1),), "transpose"), (0, (Loop(3, 1, 2),), "transpose"),
        (0, (Loop(3, 2, 2),), "transpose"), (0, (Loop(3, 9, 4), Loop(4, 1, 1)), "rows"), (0, (Loop(3, 1, 4), Loop(4, 3, 1)), "transpose"),
    ],
)  # fmt: skip
def test_the_kernel_is_chosen_by_the_innermost_loop(source: int | None, loops: tuple[Loop, ...], kernel: str) -> None:
    assert _kernel(Move(source, 0, (0,), (0,), ()), loops) == kernel
