"""Two proved layouts in, moves out: which elements go from where to where. Nothing stands between.

For each model tensor the pieces of the source (one copy of each element) are intersected with all the
pieces of the target, axis by axis: an axis' common digits become loops that move both sides at once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

from ...dsl.diagnostic import MappingError
from .digits import Common, TooIrregularError, Vector, added, by_step, meet, scaled
from .lower import Lowered
from .pieces import COORDS, COPY, Loop, Piece
from .prove import first_copy, too_irregular

MOST_MOVES = 100_000
_Ranks: TypeAlias = dict[tuple[tuple[tuple[str, int], ...], int], Vector]  # by the ranks that it moves, with steps, and extent


@dataclass(frozen=True)
class Move:
    """`source` and `target` index the lowered families; `source` is None where zeros are written.

    Place vectors are as in `pieces`: offset, copy number, coordinates. target = source * scale + shift.
    """

    source: int | None
    target: int
    at_source: Vector
    at_target: Vector
    loops: tuple[Common, ...]
    scale: float = 1.0
    shift: float = 0.0


def compose(source: tuple[Lowered, ...], target: tuple[Lowered, ...]) -> tuple[Move, ...]:
    """Moves that fill every tensor of the target. Rules for tied aliases are left out: they are not written.

    Only the first copy is read. If both sides keep one copy per rank and have equally many ranks, each target rank reads
    from the source rank of its number.
    """
    readable: dict[str, list[tuple[int, Piece, _Ranks]]] = defaultdict(list)
    for i, item in enumerate(source):
        if not item.rule.copy:
            for piece in item.pieces:
                first = first_copy(piece)
                if first is not None and piece.tensor is not None and not piece.padding:
                    readable[piece.tensor].append((i, first, _ranks(piece, item)))
    moves: list[Move] = []
    for j, item in enumerate(target):
        if item.rule.tied:
            continue
        for piece in item.pieces:
            if piece.tensor is None:
                loops = tuple((x.extent, (), x.move) for x in piece.loops)
                moves.append(Move(None, j, (), piece.base, loops))
                continue
            for i, left, ranks in readable[piece.source]:
                scale = item.rule.scale / source[i].rule.scale
                shift = item.rule.shift - source[i].rule.shift * scale
                spans = source[i].rule.rule.span, item.rule.rule.span
                try:
                    for at_source, at_target, common in _meetings(left, piece, ranks, item):
                        moves.append(Move(i, j, at_source, at_target, common, scale, shift))
                        if len(moves) > MOST_MOVES:
                            raise TooIrregularError
                except TooIrregularError:
                    raise MappingError(too_irregular(*spans)) from None
    return tuple(moves)


def _ranks(piece: Piece, item: Lowered) -> _Ranks:
    """The ranks that have copies of a piece, by names and steps and degree, and how each moves its place.

    Not where a copy may be left out: by ranks that share, and of what is optional.
    """
    found: _Ranks = {}
    if item.stored.optional:
        return found
    for loop in piece.loops:
        moved = _moved(loop, item)
        if loop.replica and not {rank for rank, _ in moved} & {*item.stored.shared}:
            found[moved, loop.extent] = tuple(0 if slot == COPY else n for slot, n in enumerate(loop.move))
    return found


def _moved(loop: Loop, item: Lowered) -> tuple[tuple[str, int], ...]:
    """The ranks whose numbers a loop moves, each with its step."""
    return tuple((name, n) for name, n in zip(item.stored.coords, loop.move[COORDS:], strict=True) if n)


def compare(side: tuple[Lowered, ...], *, all_copies: bool, present: frozenset[int]) -> tuple[Move, ...]:
    """Moves within one layout, from the copy that is read to each further declared copy: both must be equal.

    Without `all_copies`, copies that only ranks make (a norm on every rank) are left out. `present` are the
    aliases, by index, that the checkpoint has.
    """
    readable: dict[str, list[tuple[int, Piece]]] = defaultdict(list)
    for i, item in enumerate(side):
        for piece in item.pieces:
            first = first_copy(piece)
            if not item.rule.copy and first is not None and piece.tensor is not None and not piece.padding:
                readable[piece.tensor].append((i, first))
    moves: list[Move] = []
    for j, item in enumerate(side):
        if item.rule.tied and j not in present:
            continue
        for piece in item.pieces:
            if piece.tensor is None or piece.padding:
                continue
            further = [piece] if item.rule.copy else _further(piece, all_copies)
            for part in further:
                for i, left in readable[piece.tensor]:
                    if (item.rule.scale, item.rule.shift) == (side[i].rule.scale, side[i].rule.shift):
                        try:
                            moves.extend(Move(i, j, a, b, common) for a, b, common in _meetings(left, part))
                        except TooIrregularError:
                            raise MappingError(too_irregular(side[i].rule.rule.span, item.rule.rule.span)) from None
    return tuple(moves)


def _further(piece: Piece, all_copies: bool) -> Iterator[Piece]:
    """The piece without its copy 0, as boxes. A copy that moves an offset is a declared one."""

    def counts(loop: Loop) -> bool:
        return bool(loop.move[COPY]) and (all_copies or not loop.replica)

    copies = [x for x in piece.loops if x.move[COPY]]
    rest = tuple(x for x in piece.loops if not x.move[COPY])
    if piece.base[COPY]:
        yield Piece(piece.tensor, piece.first, piece.base, rest + tuple(x for x in copies if counts(x)))
        return
    for k, loop in enumerate(copies):
        if not counts(loop):
            continue
        base = added(piece.base, loop.move)
        later = tuple(x for x in copies[k + 1 :] if counts(x))
        shorter = (Loop(loop.extent - 1, loop.axis, loop.step, loop.move),) if loop.extent > 2 else ()
        yield Piece(piece.tensor, piece.first, base, (*rest, *shorter, *later))


def _meetings(
    left: Piece, right: Piece, ranks: _Ranks | None = None, item: Lowered | None = None
) -> Iterator[tuple[Vector, Vector, tuple[Common, ...]]]:
    """All common boxes of two pieces of one tensor: per axis, then every combination of axes.

    `ranks` are those that have copies of the left piece; copies that the same ranks have of the right one, which is
    of `item`, are paired with them.
    """
    axes = dict.fromkeys([a for a, _ in left.first] + [a for a, _ in right.first])
    zl, zr = scaled(left.base, 0), scaled(right.base, 0)
    per_axis = []
    for axis in axes:
        a = by_step([(x.extent, x.step, x.move) for x in left.loops if x.axis == axis])
        b = by_step([(x.extent, x.step, x.move) for x in right.loops if x.axis == axis])
        found = list(meet(right.index(axis) - left.index(axis), a, b, zl, zr))
        if not found:
            return
        per_axis.append(found)
    free = tuple(
        (x.extent, ranks.get((_moved(x, item), x.extent), zl) if ranks and item and x.replica else zl, x.move)
        for x in right.loops
        if x.axis is None
    )
    for combination in product(*per_axis):
        at_left, at_right = left.base, right.base
        loops: tuple[Common, ...] = free
        for dl, dr, common in combination:
            at_left, at_right, loops = added(at_left, dl), added(at_right, dr), loops + common
        yield at_left, at_right, loops
