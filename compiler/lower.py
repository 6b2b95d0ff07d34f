"""Rules in, pieces out: every stored tensor of a layout as affine boxes of model elements.

A dimension lowers to *pieces*, boxes of elements with their offsets (see `index`). Axes spelled in a name and
ranks move a coordinate instead of an offset. So layers, experts and ranks stay loops, and a layout of 92,000
tensors is a few dozen pieces.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..dsl.diagnostic import Diagnostic, MappingError
from ..dsl.nearest import nearest
from ..dsl.tree import AxisRef, Hole, Index, Pad, Pattern, Slice, Sum
from ..runtime.plan import Box, Stored
from .index import (
    RuleState,
    axis_of,
    check_divides,
    degree_of,
    index_pieces,
    is_stage_axis,
    joined,
    loops_of,
    stage_pieces,
)
from .pieces import COORDS, Loop, Piece, moved, product, scaled_offset
from .resolve import LiveRule, Side
from .scope import evaluate, fault


@dataclass(frozen=True)
class Lowered:
    """A family of stored tensors and all of its pieces, which tile it (that is proved later).

    `copy`: the rule is a further copy. `tied`: it stores an alias. stored = model * scale + shift.
    """

    stored: Stored
    pieces: tuple[Piece, ...]
    rule: LiveRule


def lower(side: Side) -> tuple[Lowered, ...]:
    """All live rules of a layout. Raises every fault found, together."""
    out: list[Lowered] = []
    faults: list[Diagnostic] = []
    for rule in side.rules:
        try:
            for count in _stage_counts(rule, side):
                lowered = _lower_rule(rule, side, count)
                if lowered is not None:
                    out.append(lowered)
        except MappingError as error:
            faults.extend(error.diagnostics)
    if faults:
        raise MappingError(*dict.fromkeys(faults))
    return tuple(out)


def _stage_counts(rule: LiveRule, side: Side) -> list[int | None]:
    """Stages of unequal length give tensors of unequal shape where the local block is stacked in the shape."""
    if side.stages is None or not any(_slices_stage(d, side) for d in rule.rule.dims):
        return [None]
    return [*sorted({len(s) for s in side.stages.owned})]


def _slices_stage(index: Index, side: Side) -> bool:
    match index:
        case Slice(operand, rank):
            return (side.stages is not None and rank == side.stages.rank and is_stage_axis(operand, side)) or _slices_stage(operand, side)
        case Sum(terms):
            return any(_slices_stage(f, side) for t in terms for f in t.factors)
        case Pad(operand):
            return _slices_stage(operand, side)
    return False


def _lower_rule(rule: LiveRule, side: Side, count: int | None) -> Lowered | None:
    pattern = rule.rule.names[0]
    holes = [p for p in pattern.parts if isinstance(p, Hole)]
    axes = list(dict.fromkeys(h.axis for h in holes if h.axis not in side.ranks))
    state = RuleState(side, rule, (*side.ranks, *axes), count)
    zero = state.vector()
    places = [Piece("", (), zero, ())]
    touched: set[str] = set()
    for hole in {h.axis: h for h in holes if h.axis in axes}.values():
        named = _named(hole, state, touched)
        places = [product(p, n) for p in places for n in named]
    for dim in rule.rule.dims:
        _touch(dim, side, touched)
    fixed = _fixed_ranks(rule, side, touched)
    instances = places
    for rank, n in side.ranks.items():
        ranked = _rank_pieces(rank, n, state, fixed, touched, instances)
        instances = [product(p, r) for p in instances for r in ranked.instances]
        places = [product(p, r) for p in places for r in ranked.copies]
    shape: list[int] = []
    dims: list[list[Piece]] = []
    for dim in rule.rule.dims:
        size, pieces = index_pieces(dim, state)
        shape.append(size)
        dims.append(pieces)
    body = [Piece("", (), zero, ())]
    stride = 1
    for size, pieces in zip(reversed(shape), reversed(dims), strict=True):
        body = [joined(scaled_offset(p, stride), b, rule.rule.span) for p in pieces for b in body]
        stride *= size
    pieces = [_filled(product(b, p), rule, side) for p in places for b in body]
    live = [p for p in pieces if p.tensor is not None]
    absent = {p.tensor for p in live if p.tensor in side.sizes.absent}
    if live and all(p.tensor in absent for p in live):
        return None
    if absent:
        present = sorted({str(p.tensor) for p in live} - {str(t) for t in absent})
        raise fault(
            "partly-absent",
            f"{', '.join(sorted(map(str, absent)))} {'is' if len(absent) == 1 else 'are'} absent, but stored in one tensor with {', '.join(present)}",
            rule.rule.span,
            help="the checkpoint must have all of them or none",
        )
    _check_axes(pieces, rule, side)
    stored = Stored(
        _format(pattern, side),
        _format(side.files, side) if side.files else "",
        state.coords,
        tuple(_box(p) for p in instances),
        tuple(shape),
        rule.block,
        rule.rule.dtype,
        tuple(_format(n, side) for n in rule.rule.names[1:]),
        rule.tied or rule.rule.optional,
        f"{rule.rule.span.file}:{rule.rule.span.line}",
    )
    return Lowered(stored, tuple(_stripped(p) for p in pieces), rule)


# --- names and ranks ------------------------------------------------------------------------------


def _named(hole: Hole, state: RuleState, touched: set[str]) -> list[Piece]:
    """The axis of a hole moves the coordinate that is spelled: its global index, or the rank's local number."""
    side, name = state.side, hole.axis
    offset = int(evaluate(hole.offset, side.scope)) if hole.offset is not None else 0
    stages = side.stages
    if stages is not None and name == stages.axis and hole.rank in (None, stages.rank):
        touched.add(stages.rank)
        pieces = stage_pieces(state, lambda i, local: {f"_{name}": i if hole.rank is None else local})
    else:
        axis, extent, step = axis_of(name, hole.span, side)
        if hole.rank is not None:
            degree = degree_of(hole.rank, hole.span, side)
            touched.add(hole.rank)
            check_divides(extent, degree, name, hole.rank, hole.span, side)
            local = extent // degree
            by_rank = loops_of(degree, axis, step * local, state.vector(**{f"_{hole.rank}": 1}))
            by_local = loops_of(local, axis, step, state.vector(**{f"_{name}": 1}))
            pieces = [Piece("", ((axis, 0),), state.vector(), (*by_rank, *by_local))]
        else:
            pieces = [Piece("", ((axis, 0),), state.vector(), loops_of(extent, axis, step, state.vector(**{f"_{name}": 1})))]
    return [moved(p, offset, state.slot(name)) for p in pieces]


def _touch(index: Index, side: Side, touched: set[str]) -> None:
    """Ranks that a slice in this expression binds."""
    match index:
        case AxisRef(name) if name in side.lets:
            _touch(side.lets[name], side, touched)
        case Slice(operand, rank):
            touched.add(rank)
            _touch(operand, side, touched)
        case Pad(operand):
            _touch(operand, side, touched)
        case Sum(terms):
            for term in terms:
                for factor in term.factors:
                    _touch(factor, side, touched)


def _fixed_ranks(rule: LiveRule, side: Side, touched: set[str]) -> dict[str, int]:
    on = rule.rule.on
    if on is None:
        return {}
    if side.stages is None or side.stages.rank in touched:
        why = "the layout has no stages" if side.stages is None else "the rule already says which stage owns it"
        raise fault("misplaced-on", f"`on {on}` means nothing here: {why}", rule.rule.span, help=f"remove `on {on}`")
    rank = side.stages.rank
    return {} if on == "all" else {rank: 0 if on == "first" else side.ranks[rank] - 1}


@dataclass(frozen=True)
class _Ranked:
    """How a rank's coordinate runs: over the tensors that exist, and over the copies of one element."""

    instances: list[Piece]
    copies: list[Piece]


def _rank_pieces(rank: str, n: int, state: RuleState, fixed: Mapping[str, int], touched: set[str], places: list[Piece]) -> _Ranked:
    none = [Piece("", (), state.vector(), ())]
    if rank in fixed:
        at = [Piece("", (), state.vector(**{f"_{rank}": fixed[rank]}), ())]
        return _Ranked(at, at)
    slot = state.slot(rank)
    if any(p.base[slot] or any(loop.move[slot] for loop in p.loops) for p in places):
        return _Ranked(none, none)  # a name's stage or expert already runs over it
    stages = state.side.stages
    if stages is not None and rank == stages.rank and state.count is not None:
        owners = [r for r, owned in enumerate(stages.owned) if len(owned) == state.count]
        return _Ranked([Piece("", (), state.vector(**{f"_{rank}": r}), ()) for r in owners], none)
    every = [Piece("", (), state.vector(), loops_of(n, None, 0, state.vector(**{f"_{rank}": 1})))]
    if rank in touched:
        return _Ranked(every, none)  # a slice gives each element its rank
    weight, state.copies = state.copies, state.copies * n
    replica = Loop(n, None, 0, state.vector(copy=weight, **{f"_{rank}": 1}), replica=True)
    return _Ranked(every, [Piece("", (), state.vector(), (replica,) if n > 1 else ())])


def _format(pattern: Pattern, side: Side) -> str:
    """The pattern for `str.format`, by the names of the coordinates."""
    out = []
    for part in pattern.parts:
        if isinstance(part, str):
            out.append(part.replace("{", "{{").replace("}", "}}"))
        else:
            out.append("{" + part.axis + (f":0{part.width}" if part.width else "") + "}")
    return "".join(out)


def _box(piece: Piece) -> Box:
    return Box(piece.base[COORDS:], tuple((x.extent, x.move[COORDS:]) for x in piece.loops if x.extent > 1))


# --- what fills a piece ---------------------------------------------------------------------------


def _filled(piece: Piece, rule: LiveRule, side: Side) -> Piece:
    if piece.tensor is None:
        return piece
    name = piece.tensor or rule.tensor
    if name is None:
        raise fault("unlabelled-part", "no tensor is named for a part of this rule", rule.rule.span, help='name one: `"..." = tensor [...]`, or label each summand')
    name = side.sizes.tied.get(name, name)
    if name not in side.sizes.tensors and name not in side.sizes.absent:
        near = nearest(name, [*side.sizes.tensors])
        raise fault("unknown-tensor-name", f"model `{side.family}` has no tensor `{name}`", rule.rule.span, help=f"did you mean `{near}`?" if near else "")
    return replace(piece, tensor=name)


def _check_axes(pieces: list[Piece], rule: LiveRule, side: Side) -> None:
    faults: dict[tuple[str, str], MappingError] = {}
    for piece in pieces:
        if piece.tensor is None:
            continue
        tensor = side.sizes.tensors[piece.tensor]
        used = {a for a, _ in piece.first}
        note = (f"{tensor.name} [{', '.join(tensor.axes)}]",)
        for axis in tensor.axes:
            if axis not in used:
                faults[tensor.name, axis] = fault("missing-axis", f"this rule stores `{tensor.name}` but says nothing of its axis `{axis}`", rule.rule.span, notes=note, help=f"put `{axis}` where its elements are stored, or spell it in the name as {{{axis}}}")
        for axis in used - set(tensor.axes):
            faults[tensor.name, axis] = fault("foreign-axis", f"`{tensor.name}` has no axis `{axis}`", rule.rule.span, notes=note, help=f"remove `{axis}` from this rule")
        for axis in tensor.axes:
            steps = sorted((x.step, x.extent) for x in piece.loops if x.axis == axis and x.extent > 1)
            if any(low[0] * (low[1] - 1) >= high[0] for low, high in itertools.pairwise(steps)):
                faults[tensor.name, axis] = fault("repeated-axis", f"axis `{axis}` of `{tensor.name}` is stored along two positions", rule.rule.span, notes=note, help=f"mention `{axis}` once")
    if faults:
        raise MappingError(*(d for f in faults.values() for d in f.diagnostics))


def _stripped(piece: Piece) -> Piece:
    if piece.tensor is None:
        return Piece(None, (), piece.base, tuple(replace(x, axis=None, step=0) for x in piece.loops if x.extent > 1))
    return replace(piece, loops=tuple(x for x in piece.loops if x.extent > 1))
