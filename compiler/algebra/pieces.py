"""Pieces: what lowering makes of an index expression, and how a slice cuts them.

A piece is a box of elements of one model tensor (or of padding) and where each of them is stored: its
loops step along one axis of the model and, at the same time, along the *places* of the stored side,
`(offset in the stored tensor, copy number, coordinates...)`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ...dsl.diagnostic import fault
from ...dsl.tree import Span
from .digits import Vector, added, scaled

MOST_PIECES = 4096  # of one rule; real layouts have tens
AT, COPY, COORDS = 0, 1, 2  # slots of a place vector; coordinates follow


@dataclass(frozen=True)
class Loop:
    """`extent` iterations that step `axis` (None: no axis, as in copies and padding) and move the place.
    `replica`: a copy that only a rank makes, of a tensor that the rule does not slice by that rank."""

    extent: int
    axis: str | None
    step: int
    move: Vector
    replica: bool = False


@dataclass(frozen=True)
class Piece:
    """`tensor` is None for zeros, "" while no label says what fills it. `first` is the model index that the
    place `base` holds, per axis, as (axis, index) pairs. `padding`: written to fill up, never read. `mean`: an axis over
    which the tensor's elements are averaged; such a piece has none of its indices."""

    tensor: str | None
    first: tuple[tuple[str, int], ...]
    base: Vector
    loops: tuple[Loop, ...]
    padding: bool = False
    mean: str = ""

    @property
    def count(self) -> int:
        total = 1
        for loop in self.loops:
            total *= loop.extent
        return total

    @property
    def source(self) -> str:
        """The name of what the elements come from: the tensor, or its mean."""
        return f"mean({self.tensor}, {self.mean})" if self.mean else self.tensor or ""

    def index(self, axis: str) -> int:
        return dict(self.first).get(axis, 0)


def stepped(piece: Piece, loop: Loop, i: int, rest: tuple[Loop, ...]) -> Piece:
    """The piece with `loop` fixed at iteration `i` and `rest` the loops that remain."""
    first = dict(piece.first)
    if loop.axis is not None:
        first[loop.axis] = first.get(loop.axis, 0) + i * loop.step
    return replace(piece, first=tuple(first.items()), base=added(piece.base, scaled(loop.move, i)), loops=rest)


def product(left: Piece, right: Piece) -> Piece:
    """Both at once: offsets must already be scaled. A label on either side is what fills the box."""
    tensor = None if None in (left.tensor, right.tensor) else left.tensor or right.tensor
    first = dict(left.first)
    for axis, index in right.first:
        first[axis] = first.get(axis, 0) + index
    padding = left.padding or right.padding
    return Piece(tensor, tuple(first.items()), added(left.base, right.base), left.loops + right.loops, padding, left.mean or right.mean)


def scaled_offset(piece: Piece, k: int) -> Piece:
    """The piece when each of its positions holds `k` elements."""

    def grow(v: Vector) -> Vector:
        return (v[AT] * k, *v[1:])

    return replace(piece, base=grow(piece.base), loops=tuple(replace(x, move=grow(x.move)) for x in piece.loops))


def moved(piece: Piece, by: int, slot: int = AT) -> Piece:
    base = list(piece.base)
    base[slot] += by
    return replace(piece, base=tuple(base))


def sliced(piece: Piece, block: int, by_block: Vector) -> Iterator[Piece]:
    """Cut offsets into blocks of `block`: the block's number moves the place by `by_block` each, the rest stays offset.

    Loops that step by whole blocks become rank loops, a loop that crosses blocks evenly is split in two;
    where boundaries fall inside, the piece is cut there.
    """
    loops: list[Loop] = []
    inner = 0
    whole = True
    for loop in piece.loops:
        step, extent = loop.move[AT], loop.extent
        if step == 0:
            loops.append(loop)
        elif step >= block:
            whole = whole and step % block == 0
            loops.append(replace(loop, move=_ranked(loop.move, step // block, 0, by_block)))
        elif step * (extent - 1) < block:
            inner += step * (extent - 1)
            loops.append(loop)
        elif block % step == 0 and extent % (block // step) == 0:
            group = block // step
            far = scaled(loop.move, group)
            loops.append(Loop(extent // group, loop.axis, loop.step * group, _ranked(far, 1, 0, by_block)))
            loops.append(replace(loop, extent=group))
            inner += step * (group - 1)
        else:
            whole = False
    number, offset = divmod(piece.base[AT], block)
    if whole and offset + inner < block:
        yield replace(piece, base=_ranked(piece.base, number, offset, by_block), loops=tuple(loops))
    else:
        yield from _cut(piece, block, by_block)


def _ranked(v: Vector, number: int, offset: int, by_block: Vector) -> Vector:
    return added((offset, *v[1:]), scaled(by_block, number))


def check_few(pieces: Iterable[Piece], span: Span) -> list[Piece]:
    """The pieces, if they are few enough to be worked with one by one."""
    out: list[Piece] = []
    for piece in pieces:
        out.append(piece)
        if len(out) > MOST_PIECES:
            raise fault(
                "too-many-pieces", f"this falls into more than {MOST_PIECES} pieces", span, "cut up here",
                help="put the slice where it cuts whole blocks, or choose a degree that divides them",
            )  # fmt: skip
    return out


def _cut(piece: Piece, block: int, by_block: Vector) -> Iterator[Piece]:
    """A boundary falls inside: cut along the loop with the largest offset step."""
    k = max(range(len(piece.loops)), key=lambda i: piece.loops[i].move[AT])
    loop, rest = piece.loops[k], piece.loops[:k] + piece.loops[k + 1 :]
    step = loop.move[AT]
    below = sum(x.move[AT] * (x.extent - 1) for x in rest)
    i = 0
    while i < loop.extent:
        at = (piece.base[AT] + i * step) % block
        fits = max(0, (block - 1 - below - at) // step + 1)  # iterations that end before the boundary
        if fits == 0:
            yield from sliced(stepped(piece, loop, i, rest), block, by_block)
            i += 1
            continue
        left = loop.extent - i
        if fits >= left:
            run = left
        elif at == 0 and block % step == 0 and fits == block // step and left >= fits:
            run = left - left % fits  # whole blocks: one piece, split evenly
        else:
            run = fits
        part = stepped(piece, loop, i, rest if run == 1 else (*rest[:k], replace(loop, extent=run), *rest[k:]))
        yield from sliced(part, block, by_block)
        i += run


def bounded(piece: Piece, axis: str, limit: int) -> Iterator[Piece]:
    """Cut a piece at index `limit` of an axis: what lies beyond becomes zeros."""
    first = piece.index(axis)
    on_axis = [x for x in piece.loops if x.axis == axis and x.extent > 1]
    if first >= limit:
        yield replace(piece, tensor=None)
    elif first + sum(x.step * (x.extent - 1) for x in on_axis) < limit:
        yield piece
    else:
        loop = max(on_axis, key=lambda x: x.step)
        rest = tuple(x for x in piece.loops if x is not loop)
        below = sum(x.step * (x.extent - 1) for x in on_axis if x is not loop)
        inside = min(loop.extent, max(0, (limit - 1 - first - below) // loop.step + 1))
        beyond = min(loop.extent, -(-(limit - first) // loop.step))
        for begin, end in ((0, inside), (beyond, loop.extent)):
            if begin < end:
                part = stepped(piece, loop, begin, (*rest, replace(loop, extent=end - begin)))
                yield part if begin == 0 and inside else replace(part, tensor=None)
        for i in range(inside, beyond):
            yield from bounded(stepped(piece, loop, i, rest), axis, limit)
