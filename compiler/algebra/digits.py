"""Mixed-radix arithmetic on loops: cut a box into blocks, and intersect two boxes on a line.

A *vector* holds one number per place that a loop moves (an offset, a copy number, coordinates). A
*digit* is a loop over a line: `extent` iterations, each moving `step` along the line and `move` in the
places. A system of digits, largest step first, denotes the points `sum(i_k * step_k)`.

How two systems meet. Layouts number the same axis by different digits: ranks of 4 here, ranks of 6
there, key/value groups elsewhere. Where one step divides the other, the finer digit is cut into groups
that match the coarser one, with a shorter head and tail where the two are out of phase; equal steps then
pair off, index by index, into one common loop. Only where neither step divides the other is the coarser
digit enumerated. So the common loops of two layouts are found symbolically, whatever their extents:
the cost depends on how many blocks are cut, never on how many elements there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

Vector: TypeAlias = tuple[int, ...]
Digit: TypeAlias = tuple[int, int, Vector]  # extent, step, move
Common: TypeAlias = tuple[int, Vector, Vector]  # extent, move on the left, move on the right
Meeting: TypeAlias = tuple[Vector, Vector, tuple[Common, ...]]


class TooIrregularError(Exception):
    """The two sides meet in more blocks than can be listed."""


@dataclass
class _Budget:
    """Blocks that may still be listed one by one."""

    left: int = 200_000

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise TooIrregularError


def scaled(v: Vector, k: int) -> Vector:
    return tuple(x * k for x in v)


def added(a: Vector, b: Vector) -> Vector:
    return tuple(x + y for x, y in zip(a, b, strict=True))


def span(digits: tuple[Digit, ...]) -> int:
    """The distance from the first to the last point."""
    return sum((extent - 1) * step for extent, step, _ in digits)


def nested(digits: tuple[Digit, ...]) -> bool:
    """Whether no two index tuples denote one point, by each step exceeding what lies below it."""
    below = 0
    for extent, step, _ in reversed(digits):
        if extent > 1 and step <= below:
            return False
        below += (extent - 1) * step
    return True


def by_step(digits: Iterable[Digit]) -> tuple[Digit, ...]:
    """Largest step first; digits of one iteration carry nothing and go."""
    return tuple(sorted((d for d in digits if d[0] > 1), key=lambda d: -d[1]))


def meet(shift: int, left: tuple[Digit, ...], right: tuple[Digit, ...], zl: Vector, zr: Vector) -> Iterator[Meeting]:
    """Every way in which `sum(left) == shift + sum(right)`, as boxes: where it starts on each side, and its loops.

    `zl` and `zr` are zero vectors of the two sides' lengths. Raises `TooIrregularError` rather than go on for long.
    """
    return _meet(shift, left, right, zl, zr, _Budget())


def _meet(shift: int, left: tuple[Digit, ...], right: tuple[Digit, ...], zl: Vector, zr: Vector, budget: _Budget) -> Iterator[Meeting]:
    budget.spend()
    left_span, right_span = span(left), span(right)
    if shift > left_span or shift + right_span < 0:
        return
    if not left and not right:
        yield zl, zr, ()  # shift is 0 here
        return
    a, b = (left[0] if left else None), (right[0] if right else None)
    if a and b and a[1] == b[1]:
        yield from _pair(shift, left, right, zl, zr, budget)
    elif b is None or (a is not None and a[1] > b[1]):
        yield from _coarse_left(shift, left, right, zl, zr, budget)
    else:
        for at_right, at_left, loops in _coarse_left(-shift, right, left, zr, zl, budget):
            yield at_left, at_right, tuple((n, x, y) for n, y, x in loops)


def _pair(shift: int, left: tuple[Digit, ...], right: tuple[Digit, ...], zl: Vector, zr: Vector, budget: _Budget) -> Iterator[Meeting]:
    """Both top digits step equally: index i on the left meets index i - q on the right."""
    (n, step, move), (m, _, other) = left[0], right[0]
    low, high = shift - span(left[1:]), shift + span(right[1:])
    for q in range(-(-low // step), high // step + 1):
        budget.spend()
        first = max(0, -q)
        count = min(m, n - q) - first
        if count <= 0:
            continue
        for at_left, at_right, loops in _meet(shift - q * step, left[1:], right[1:], zl, zr, budget):
            yield (
                added(at_left, scaled(move, first + q)),
                added(at_right, scaled(other, first)),
                ((count, move, other), *loops) if count > 1 else loops,
            )


def _coarse_left(
    shift: int, left: tuple[Digit, ...], right: tuple[Digit, ...], zl: Vector, zr: Vector, budget: _Budget
) -> Iterator[Meeting]:
    """The left top digit has the larger step: cut the right one to fit it, or go through the left one's blocks."""
    extent, step, move = left[0]
    if right and step % right[0][1] == 0:
        n, fine, other = right[0]
        group = step // fine
        head = ((-shift) % step) // fine
        if 0 < head < n or n > group:
            head = min(head, n)
            whole, rest = divmod(n - head, group)
            parts = (
                (0, ((head, fine, other),)),
                (head, ((whole, step, scaled(other, group)), (group, fine, other))),
                (head + whole * group, ((rest, fine, other),)),
            )
            for first, digits in parts:
                if all(d[0] for d in digits):
                    cut = tuple(d for d in digits if d[0] > 1) + right[1:]
                    for at_left, at_right, loops in _meet(shift + first * fine, left, cut, zl, zr, budget):
                        yield at_left, added(at_right, scaled(other, first)), loops
            return
    low, high = shift - span(left[1:]), shift + span(right)
    for i in range(max(0, -(-low // step)), min(extent - 1, high // step) + 1):
        for at_left, at_right, loops in _meet(shift - i * step, left[1:], right, zl, zr, budget):
            yield added(at_left, scaled(move, i)), at_right, loops


def overlap(shift: int, left: tuple[Digit, ...], right: tuple[Digit, ...]) -> int:
    """How many pairs of indices denote one point."""
    total = 0
    for _, _, loops in meet(shift, left, right, (), ()):
        count = 1
        for extent, _, _ in loops:
            count *= extent
        total += count
    return total
