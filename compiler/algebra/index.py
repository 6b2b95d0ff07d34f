"""Index expressions in, pieces out: what stands at each position of one dimension of a stored tensor.

A product scales the offsets of its left factors by the size of what stands to their right; a sum places its
terms one after the other; a slice cuts offsets into blocks and turns the block's number into the rank's
coordinate; a pad adds a piece of nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ...dsl.diagnostic import fault
from ...dsl.nearest import did_you_mean
from ...dsl.tree import FILLS, AxisRef, Copies, Index, One, Pad, Slice, Span, Sum, Term
from ...dsl.walk import walk
from ..settle.rank_digits import Digit, Digits, degree
from ..settle.resolve import LiveRule, Side
from ..values.scope import LARGEST, either, whole_number
from ..values.stages import stage_runs
from .digits import Vector
from .pieces import AT, COORDS, COPY, Loop, Piece, check_few, moved, product, scaled_offset, sliced, stepped


@dataclass
class RuleState:
    """One rule while it is lowered: coordinates by slot, and the weight of the next copy number."""

    side: Side
    rule: LiveRule
    coords: tuple[str, ...]
    count: int | None  # stages that own this many, where the local block is in the shape
    copies: int = 1

    def slot(self, coord: str) -> int:
        return COORDS + self.coords.index(coord)

    def vector(self, **slots: int) -> Vector:
        v = [0] * (COORDS + len(self.coords))
        for name, value in slots.items():
            v[{"at": AT, "copy": COPY}.get(name) if name in ("at", "copy") else self.slot(name[1:])] += value  # type: ignore[index]
        return tuple(v)

    def step(self, digit: Digit) -> Vector:
        """How one step of a digit moves the place."""
        return self.vector(**{f"_{rank}": n for rank, n in digit.moves})


def index_pieces(index: Index, state: RuleState) -> tuple[int, list[Piece]]:
    """The size of an expression, and its pieces at offsets 0 to size - 1."""
    zero = state.vector()
    side = state.side
    match index:
        case One():
            return 1, [Piece("", (), zero, ())]
        case AxisRef(name) if name in side.lets:
            return index_pieces(side.lets[name], state)
        case AxisRef(name):
            axis, extent, step = axis_of(name, index.span, side)
            return extent, [Piece("", ((axis, 0),), zero, loops_of(extent, axis, step, state.vector(at=1)))]
        case Copies(count):
            n = whole_number(count, side.scope, "the number of copies")
            weight, state.copies = state.copies, state.copies * n
            return n, [Piece("", (), zero, loops_of(n, None, 0, state.vector(at=1, copy=weight)))]
        case Pad():
            return _pad(index, state)
        case Slice(operand, rank):
            return _slice(index, operand, rank, state)
        case Sum():
            return _sum_of(index, state)
    raise TypeError(f"no such index expression: {index!r}")


def sliced_by(index: Index, side: Side) -> Iterator[str]:
    """The ranks that a slice in this expression binds."""
    return (node.rank for node in written_out(index, side) if isinstance(node, Slice))


def written_out(index: Index, side: Side) -> Iterator[Any]:
    """The nodes of an expression, in the place of each `let` those of what it stands for."""
    for node in walk(index):
        if isinstance(node, AxisRef) and node.name in side.lets:
            yield from written_out(side.lets[node.name], side)
        else:
            yield node


def loops_of(extent: int, axis: str | None, step: int, move: Vector) -> tuple[Loop, ...]:
    return (Loop(extent, axis, step, move if extent > 1 else tuple(0 for _ in move)),)


def axis_of(name: str, span: Span, side: Side) -> tuple[str, int, int]:
    part = side.parts.get(name)
    if part is not None:
        return part.axis, part.extent, part.step
    size = side.sizes.values.get(name)
    if isinstance(size, int) and not isinstance(size, bool):
        return name, size, 1
    known = [*side.parts, *side.lets, *(n for n, v in side.sizes.values.items() if type(v) is int)]
    raise fault(
        "unknown-axis", f"`{name}` is not an axis with a size here", span,
        help=did_you_mean(name, known, "axes are declared in the model and sized by a config"),
    )  # fmt: skip


def digits_of(rank: str, span: Span, side: Side) -> Digits:
    """What the number of a rank is made of, the outermost first."""
    found = side.digits(rank)
    if not found:
        raise fault("unknown-rank", f"`/{rank}`: the layout has no rank `{rank}`", span, help=did_you_mean(rank, list(side.ranks), f"declare it: `rank {rank} = 1`"))
    return found


def _shown(index: Index) -> str:
    from ...dsl.formatting.show import show

    return show(index)


def check_divides(size: int, degree: int, what: str, rank: str, span: Span, side: Side) -> None:
    if size % degree == 0:
        return
    names = [n for n in side.sizes.values if n in what.replace("(", " ").replace(")", " ").replace("/", " ").split()]
    notes = tuple(f"{n} = {side.sizes.values[n]} comes from {side.sizes.origins[n]}" for n in names if side.sizes.origins.get(n))
    fits = [d for d in range(1, min(size, 1024) + 1) if size % d == 0]
    raise fault(
        "uneven-split", f"`{what}` ({size}) does not divide over {rank} = {degree}", span, f"sliced into {degree} blocks here",
        notes=notes, help=f"use {rank} = {either(fits)}",
    )  # fmt: skip


def _slice(index: Slice, operand: Index, rank: str, state: RuleState) -> tuple[int, list[Piece]]:
    side = state.side
    digits = digits_of(rank, index.span, side)
    if side.stages is not None and rank == side.stages.rank and is_stage_axis(operand, side):
        assert state.count is not None
        return state.count, stage_pieces(state, lambda _, local: {"at": local})
    size, pieces = index_pieces(operand, state)
    if size % degree(digits):
        check_divides(size, degree(digits), _shown(operand), rank, index.span, side)
    block = size
    for digit in digits:
        block //= digit.extent
        pieces = check_few((q for p in pieces for q in sliced(p, block, state.step(digit))), index.span)
    return block, pieces


def _pad(index: Pad, state: RuleState) -> tuple[int, list[Piece]]:
    size, pieces = index_pieces(index.operand, state)
    amount = whole_number(index.amount, state.side.scope, "the amount to pad to")
    total = amount if index.exact else -(-size // amount) * amount
    if total < size:
        raise fault("pad-too-small", f"`{_shown(index.operand)}` ({size}) is larger than the {amount} it is padded to", index.span, help=f"pad it to {size} or more")
    if total == size:
        return size, pieces
    how = _fill(index, state.side)
    if how == "zero":
        # Each rank that slices the operand has padding of its own.
        digits = dict.fromkeys(d for rank in sliced_by(index.operand, state.side) for d in state.side.digits(rank))
        by_rank = [loop for digit in digits for loop in loops_of(digit.extent, None, 0, state.step(digit))]
        fill = [Piece(None, (), state.vector(at=size), (*by_rank, *loops_of(total - size, None, 0, state.vector(at=1))))]
    elif how == "mean":
        axis = _whole_axis(index.operand, index, state.side)
        fill = [Piece("", (), state.vector(at=size), loops_of(total - size, None, 0, state.vector(at=1)), True, axis)]
    else:
        again = loops_of(total - size, None, 0, state.vector(at=1))
        lasts = [last for p in pieces if (last := _at_offset(p, size - 1)) is not None]
        fill = [moved(replace(p, loops=p.loops + again, padding=True), 1) for p in lasts]
    return total, pieces + fill


def _fill(index: Pad, side: Side) -> str:
    """How the padding is filled: as the rule says, or as the parameter that it names does."""
    if index.fill in FILLS:
        return index.fill
    value = side.params.get(index.fill)
    if value not in FILLS:
        ways = "`zero`, `repeat last` or `mean`"
        raise fault("bad-fill", f"`{index.fill}` says how to pad, and is {value}", index.span, help=f"pad with {ways}, or a parameter that is one of them")
    return str(value)


def _whole_axis(operand: Index, index: Pad, side: Side) -> str:
    """The axis of the model that an expression is, by itself."""
    match operand:
        case AxisRef(name) if name in side.lets:
            return _whole_axis(side.lets[name], index, side)
        case AxisRef(name) if name not in side.parts and type(side.sizes.values.get(name)) is int:
            return name
        case Sum((Term(None, (factor,)),)):
            return _whole_axis(factor, index, side)
    raise fault(
        "mean-of-part", f"`{_shown(operand)}` is filled up with a mean, and is not one whole axis", index.span,
        help="pad the axis itself, and slice it outside: pad(vocab, 128, mean)/tp",
    )  # fmt: skip


def _at_offset(piece: Piece, offset: int) -> Piece | None:
    """The last element of a piece: the part of it in which every offset loop is at its end."""
    for loop in piece.loops:
        if loop.move[AT]:
            rest = tuple(x for x in piece.loops if x is not loop)
            piece = stepped(piece, loop, loop.extent - 1, rest)
    return piece if piece.base[AT] == offset else None


def _sum_of(index: Sum, state: RuleState) -> tuple[int, list[Piece]]:
    out: list[Piece] = []
    offset = 0
    for term in index.terms:
        sizes, factors = [], []
        for factor in term.factors:
            size, pieces = index_pieces(factor, state)
            sizes.append(size)
            factors.append(pieces)
        body = [Piece("", (), state.vector(), ())]
        stride = 1
        for size, pieces in zip(reversed(sizes), reversed(factors), strict=True):
            body = check_few((joined(scaled_offset(p, stride), b, term.span) for p in pieces for b in body), term.span)
            stride *= size
        for piece in body:
            out.append(moved(_labelled(piece, term.label, term.span, state), offset))
        check_few(out, index.span)
        offset += stride
        if offset > LARGEST:
            raise fault("too-long", "this dimension is longer than any checkpoint's", index.span, help="check its sizes and numbers of copies")
    return offset, out


def _labelled(piece: Piece, label: str | None, span: Span, state: RuleState) -> Piece:
    if label is None or piece.tensor is None:
        return piece
    if piece.tensor:
        raise fault("two-labels", f"`{label}:` labels what `{piece.tensor}:` fills already", span, help="keep one label")
    return replace(piece, tensor=state.rule.renames.get(label, label))


def joined(left: Piece, right: Piece, span: Span) -> Piece:
    if left.tensor and right.tensor:
        raise fault("two-labels", f"both `{left.tensor}:` and `{right.tensor}:` fill one position", span, help="keep one label")
    return product(left, right)


def is_stage_axis(index: Index, side: Side) -> bool:
    """Whether this is the axis that stages divide, by itself, also by way of a `let` or in parentheses."""
    match index:
        case AxisRef(name) if name in side.lets:
            return is_stage_axis(side.lets[name], side)
        case AxisRef(name):
            return side.stages is not None and name == side.stages.axis
        case Sum((Term(None, (factor,)),)):
            return is_stage_axis(factor, side)
    return False


def stage_pieces(state: RuleState, place: Callable[[int, int], dict[str, int]]) -> list[Piece]:
    stages = state.side.stages
    assert stages is not None
    out = []
    spelled = stages.interleave in state.coords
    for run in stage_runs(stages, state.count, spelled, dict(state.rule.picked).get(stages.axis)):
        loops = tuple(
            Loop(n, stages.axis, by_index, state.vector(**_sum({f"_{stages.rank}": by_rank}, place(by_index, by_local))))
            for n, by_rank, by_index, by_local in run.loops
        )
        turn = {f"_{stages.interleave}": run.turn} if spelled else {}
        base = state.vector(**_sum({f"_{stages.rank}": run.first_rank, **turn}, place(run.first_index, run.first_local)))
        out.append(Piece("", ((stages.axis, run.first_index),), base, loops))
    return out


def _sum(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    return {k: a.get(k, 0) + b.get(k, 0) for k in a | b}
