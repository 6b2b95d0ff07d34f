"""Moves in, steps out: as few loops as the two layouts allow, each with a kernel class.

  coalesce   an outer loop that continues where an inner one ends, on both sides, joins it
  fuse       equal moves at regular distances become one move with a loop more
  order      by target family, then by where they begin, so that files are written forwards
  choose     a kernel class by the innermost loop
"""

from __future__ import annotations

from collections import defaultdict

from ...runtime.plan.plan import Loop, Over, Step
from .compose import Move
from .digits import Common, Vector, added
from .lower import Lowered
from .pieces import AT, COORDS

NEAR = 256  # moves that are tried as the second of a run: runs begin near each other


def optimise(moves: tuple[Move, ...], source: tuple[Lowered, ...], target: tuple[Lowered, ...]) -> tuple[Step, ...]:
    widths = {i: len(x.stored.coords) for i, x in enumerate(source)}
    steps = [_step(m, target[m.target].stored.origin, widths) for m in fuse(tuple(map(forget_copies, moves)))]
    steps.sort(key=lambda s: (s.target, s.target_at, s.target_first, s.source_at))
    return tuple(steps)


def forget_copies(move: Move) -> Move:
    """Copy numbers have done their work in the proof; equal moves must compare equal."""

    def clean(v: Vector) -> Vector:
        return (v[AT], 0, *v[COORDS:]) if v else v

    loops = tuple((n, clean(a), clean(b)) for n, a, b in move.loops if n > 1)
    return Move(move.source, move.target, clean(move.at_source), clean(move.at_target), loops, move.scale, move.shift)


def fuse(moves: tuple[Move, ...]) -> tuple[Move, ...]:
    """Join runs of moves that differ by a constant distance, until nothing joins."""
    while True:
        groups: dict[object, list[Move]] = defaultdict(list)
        for m in moves:
            groups[m.source, m.target, tuple(sorted(m.loops)), m.scale, m.shift].append(m)
        out: list[Move] = []
        for group in groups.values():
            out += _runs(sorted(group, key=lambda m: (m.at_target, m.at_source))) if len(group) > 1 else group
        if len(out) == len(moves):
            return moves
        moves = tuple(out)


def _runs(group: list[Move]) -> list[Move]:
    out: list[Move] = []
    while group:
        first = group.pop(0)
        best: list[Move] = []
        places = {(m.at_source, m.at_target): m for m in group}
        for second in group[:NEAR]:
            ds, dt = _distance(first.at_source, second.at_source), _distance(first.at_target, second.at_target)
            if min(*ds, *dt) < 0:
                continue  # loops only go forwards
            run = [second]
            while (after := places.get((added(run[-1].at_source, ds), added(run[-1].at_target, dt)))) is not None:
                run.append(after)
            if len(run) > len(best):
                best, step = run, (ds, dt)
            if len(best) == len(group):
                break
        if best:
            taken = {id(m) for m in best}
            group = [m for m in group if id(m) not in taken]
            loop: Common = (len(best) + 1, *step)
            first = Move(first.source, first.target, first.at_source, first.at_target, (loop, *first.loops), first.scale, first.shift)
        out.append(first)
    return out


def _distance(a: Vector, b: Vector) -> Vector:
    return tuple(y - x for x, y in zip(a, b, strict=True))


def _step(move: Move, origin: str, widths: dict[int, int]) -> Step:
    """Split loops into those over instances (a coordinate moves) and those over elements, and coalesce these."""
    over: list[Over] = []
    loops: list[Loop] = []
    for extent, a, b in move.loops:
        ca, cb = a[COORDS:] if a else (), b[COORDS:]
        if any(ca) or any(cb):
            over.append(Over(extent, ca, cb, a[AT] if a else 0, b[AT]))
        else:
            loops.append(Loop(extent, a[AT] if a else 0, b[AT]))
    joined = coalesce(loops)
    return Step(
        move.source, move.target, move.at_source[COORDS:] if move.at_source else (), move.at_target[COORDS:],
        tuple(sorted(over, key=lambda o: o.target, reverse=True)), move.at_source[AT] if move.at_source else 0,
        move.at_target[AT], joined, _kernel(move, joined), move.scale, move.shift, origin,
    )  # fmt: skip


def coalesce(loops: list[Loop]) -> tuple[Loop, ...]:
    """Largest target stride first; a loop that begins where the next one ends, on both sides, is one with it."""
    out: list[Loop] = []
    for loop in sorted(loops, key=lambda x: (-x.target, -x.source)):
        if loop.extent == 1:
            continue
        if out and out[-1].target == loop.target * loop.extent and out[-1].source == loop.source * loop.extent:
            out[-1] = Loop(out[-1].extent * loop.extent, loop.source, loop.target)
        else:
            out.append(loop)
    return tuple(out)


def _kernel(move: Move, loops: tuple[Loop, ...]) -> str:
    if move.source is None:
        return "fill"
    if not loops or (len(loops) == 1 and loops[0].source == loops[0].target == 1):
        return "range"
    return "rows" if loops[-1].source == loops[-1].target == 1 else "transpose"


