"""Rules in, pieces out: every stored tensor of a layout as affine boxes of model elements.

An expression lowers to *pieces*: boxes of elements with their place in the stored tensor. A product
scales the offsets of its left factors by the size of what stands to their right; a sum places its terms
one after the other; a slice cuts offsets into blocks and turns the block's number into the rank's
coordinate; a pad adds a piece of nothing. Axes spelled in a name move a coordinate instead of an offset.
So layers, experts and ranks stay loops, and a layout of 92,000 tensors is a few dozen pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from ..dsl.diagnostic import Diagnostic, MappingError
from ..dsl.show import show
from ..dsl.nearest import nearest
from ..dsl.tree import AxisRef, Copies, Hole, Index, One, Pad, Pattern, Slice, Span, Sum
from ..runtime.plan import Box, Stored
from .digits import Vector
from .pieces import AT, COORDS, COPY, Loop, Piece, moved, product, scaled_offset, sliced, stepped
from .resolve import LiveRule, Side
from .scope import evaluate, fault
from .stages import stage_runs


@dataclass(frozen=True)
class Lowered:
    """A family of stored tensors and all of its pieces, which tile it (that is proved later).

    `copy`: the rule is a further copy. `tied`: it stores an alias. stored = model * scale + shift.
    """

    stored: Stored
    pieces: tuple[Piece, ...]
    rule: LiveRule


@dataclass
class _Rule:
    """One rule while it is lowered: coordinates by slot, and the weight of the next copy number."""

    side: Side
    rule: LiveRule
    coords: tuple[str, ...]
    count: int | None  # stages that own this many, where the local block is in the shape
    copies: int = 1
    depth: int = 0

    def slot(self, coord: str) -> int:
        return COORDS + self.coords.index(coord)

    def vector(self, **slots: int) -> Vector:
        v = [0] * (COORDS + len(self.coords))
        for name, value in slots.items():
            v[{"at": AT, "copy": COPY}.get(name) if name in ("at", "copy") else self.slot(name[1:])] += value  # type: ignore[index]
        return tuple(v)


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
            return (side.stages is not None and rank == side.stages.rank and _is_stage_axis(operand, side)) or _slices_stage(operand, side)
        case Sum(terms):
            return any(_slices_stage(f, side) for t in terms for f in t.factors)
        case Pad(operand):
            return _slices_stage(operand, side)
    return False


def _is_stage_axis(index: Index, side: Side) -> bool:
    return isinstance(index, AxisRef) and side.stages is not None and index.name == side.stages.axis


def _lower_rule(rule: LiveRule, side: Side, count: int | None) -> Lowered | None:
    pattern = rule.rule.names[0]
    holes = [p for p in pattern.parts if isinstance(p, Hole)]
    axes = list(dict.fromkeys(h.axis for h in holes if h.axis not in side.ranks))
    state = _Rule(side, rule, (*side.ranks, *axes), count)
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
        size, pieces = _index(dim, state)
        shape.append(size)
        dims.append(pieces)
    body = [Piece("", (), zero, ())]
    stride = 1
    for size, pieces in zip(reversed(shape), reversed(dims), strict=True):
        body = [_joined(scaled_offset(p, stride), b, rule.rule.span) for p in pieces for b in body]
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


def _named(hole: Hole, state: _Rule, touched: set[str]) -> list[Piece]:
    """The axis of a hole moves the coordinate that is spelled: its global index, or the rank's local number."""
    side, name = state.side, hole.axis
    offset = int(evaluate(hole.offset, side.scope)) if hole.offset is not None else 0
    stages = side.stages
    if stages is not None and name == stages.axis and hole.rank in (None, stages.rank):
        touched.add(stages.rank)
        pieces = _stage_pieces(state, lambda i, local: {f"_{name}": i if hole.rank is None else local})
    else:
        axis, extent, step = _axis(name, hole.span, side)
        if hole.rank is not None:
            degree = _degree(hole.rank, hole.span, side)
            touched.add(hole.rank)
            _divides(extent, degree, name, hole.rank, hole.span, side)
            local = extent // degree
            by_rank = _loop(degree, axis, step * local, state.vector(**{f"_{hole.rank}": 1}))
            by_local = _loop(local, axis, step, state.vector(**{f"_{name}": 1}))
            pieces = [Piece("", ((axis, 0),), state.vector(), (*by_rank, *by_local))]
        else:
            pieces = [Piece("", ((axis, 0),), state.vector(), _loop(extent, axis, step, state.vector(**{f"_{name}": 1})))]
    return [moved(p, offset, state.slot(name)) for p in pieces]


def _stage_pieces(state: _Rule, place: Callable[[int, int], dict[str, int]]) -> list[Piece]:
    stages = state.side.stages
    assert stages is not None
    out = []
    for run in stage_runs(stages, state.count):
        loops = tuple(
            Loop(n, stages.axis, by_index, state.vector(**_sum({f"_{stages.rank}": by_rank}, place(by_index, by_local))))
            for n, by_rank, by_index, by_local in run.loops
        )
        base = state.vector(**_sum({f"_{stages.rank}": run.first_rank}, place(run.first_index, run.first_local)))
        out.append(Piece("", ((stages.axis, run.first_index),), base, loops))
    return out


def _sum(a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
    return {k: a.get(k, 0) + b.get(k, 0) for k in a | b}


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


def _rank_pieces(rank: str, n: int, state: _Rule, fixed: Mapping[str, int], touched: set[str], places: list[Piece]) -> _Ranked:
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
    every = [Piece("", (), state.vector(), _loop(n, None, 0, state.vector(**{f"_{rank}": 1})))]
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


# --- index expressions ----------------------------------------------------------------------------


def _index(index: Index, state: _Rule) -> tuple[int, list[Piece]]:
    """The size of an expression, and its pieces at offsets 0 to size - 1."""
    zero = state.vector()
    side = state.side
    match index:
        case One():
            return 1, [Piece("", (), zero, ())]
        case AxisRef(name) if name in side.lets:
            if state.depth > 40:
                raise fault("circular-let", f"`let {name}` is defined by itself", index.span)
            state.depth += 1
            out = _index(side.lets[name], state)
            state.depth -= 1
            return out
        case AxisRef(name):
            axis, extent, step = _axis(name, index.span, side)
            return extent, [Piece("", ((axis, 0),), zero, _loop(extent, axis, step, state.vector(at=1)))]
        case Copies(count):
            n = evaluate(count, side.scope)
            if not isinstance(n, int) or n < 1:
                raise fault("bad-copies", f"copies({n}): a number of copies is a whole number from 1", index.span)
            weight, state.copies = state.copies, state.copies * n
            return n, [Piece("", (), zero, _loop(n, None, 0, state.vector(at=1, copy=weight)))]
        case Pad():
            return _pad(index, state)
        case Slice(operand, rank):
            return _slice(index, operand, rank, state)
        case Sum():
            return _sum_of(index, state)
    raise TypeError(f"no such index expression: {index!r}")


def _loop(extent: int, axis: str | None, step: int, move: Vector) -> tuple[Loop, ...]:
    return (Loop(extent, axis, step, move if extent > 1 else tuple(0 for _ in move)),)


def _axis(name: str, span: Span, side: Side) -> tuple[str, int, int]:
    part = side.parts.get(name)
    if part is not None:
        return part.axis, part.extent, part.step
    size = side.sizes.values.get(name)
    if isinstance(size, int) and not isinstance(size, bool):
        return name, size, 1
    known = [*side.parts, *side.lets, *(n for n, v in side.sizes.values.items() if type(v) is int)]
    near = nearest(name, known)
    raise fault("unknown-axis", f"`{name}` is not an axis with a size here", span, help=f"did you mean `{near}`?" if near else "axes are declared in the model and sized by a config")


def _degree(rank: str, span: Span, side: Side) -> int:
    if rank not in side.ranks:
        near = nearest(rank, list(side.ranks))
        raise fault("unknown-rank", f"`/{rank}`: the layout has no rank `{rank}`", span, help=f"did you mean `/{near}`?" if near else f"declare it: `rank {rank} = 1`")
    return side.ranks[rank]


def _divides(size: int, degree: int, what: str, rank: str, span: Span, side: Side) -> None:
    if size % degree == 0:
        return
    names = [n for n in side.sizes.values if n in what.replace("(", " ").replace(")", " ").replace("/", " ").split()]
    notes = tuple(f"{n} = {side.sizes.values[n]} comes from {side.sizes.origins[n]}" for n in names if side.sizes.origins.get(n))
    fits = [d for d in range(1, min(size, 1024) + 1) if size % d == 0]
    raise fault(
        "uneven-split", f"`{what}` ({size}) does not divide over {rank} = {degree}", span, f"sliced into {degree} blocks here",
        notes=notes, help=f"use {rank} = {', '.join(map(str, fits[:12]))}" + (" ..." if len(fits) > 12 else ""),
    )  # fmt: skip


def _slice(index: Slice, operand: Index, rank: str, state: _Rule) -> tuple[int, list[Piece]]:
    side = state.side
    degree = _degree(rank, index.span, side)
    if side.stages is not None and rank == side.stages.rank and _is_stage_axis(operand, side):
        assert state.count is not None
        return state.count, _stage_pieces(state, lambda _, local: {"at": local})
    size, pieces = _index(operand, state)
    _divides(size, degree, show(operand), rank, index.span, side)
    block = size // degree
    return block, [q for p in pieces for q in sliced(p, block, state.slot(rank))]


def _pad(index: Pad, state: _Rule) -> tuple[int, list[Piece]]:
    size, pieces = _index(index.operand, state)
    amount = evaluate(index.amount, state.side.scope)
    if not isinstance(amount, int) or amount < 1:
        raise fault("bad-pad", f"cannot pad to {amount}: a whole number from 1 is needed", index.span)
    total = amount if index.exact else -(-size // amount) * amount
    if total < size:
        raise fault("bad-pad", f"`{show(index.operand)}` ({size}) is larger than the {amount} it is padded to", index.span)
    if total == size:
        return size, pieces
    if index.fill == "zero":
        fill = [Piece(None, (), state.vector(at=size), _loop(total - size, None, 0, state.vector(at=1)))]
    else:
        again = _loop(total - size, None, 0, state.vector(at=1))
        lasts = [last for p in pieces if (last := _at_offset(p, size - 1)) is not None]
        fill = [moved(replace(p, loops=p.loops + again, padding=True), 1) for p in lasts]
    return total, pieces + fill


def _at_offset(piece: Piece, offset: int) -> Piece | None:
    """The part of a piece at one offset, which is its last: every offset loop at its end."""
    for loop in piece.loops:
        if loop.move[AT]:
            rest = tuple(x for x in piece.loops if x is not loop)
            piece = stepped(piece, loop, loop.extent - 1, rest)
    return piece if piece.base[AT] == offset else None


def _sum_of(index: Sum, state: _Rule) -> tuple[int, list[Piece]]:
    out: list[Piece] = []
    offset = 0
    for term in index.terms:
        sizes, factors = [], []
        for factor in term.factors:
            size, pieces = _index(factor, state)
            sizes.append(size)
            factors.append(pieces)
        body = [Piece("", (), state.vector(), ())]
        stride = 1
        for size, pieces in zip(reversed(sizes), reversed(factors), strict=True):
            body = [_joined(scaled_offset(p, stride), b, term.span) for p in pieces for b in body]
            stride *= size
        for piece in body:
            out.append(moved(_labelled(piece, term.label, term.span, state), offset))
        offset += stride
    return offset, out


def _labelled(piece: Piece, label: str | None, span: Span, state: _Rule) -> Piece:
    if label is None or piece.tensor is None:
        return piece
    if piece.tensor:
        raise fault("two-labels", f"`{label}:` labels what `{piece.tensor}:` fills already", span, help="keep one label")
    return replace(piece, tensor=state.rule.renames.get(label, label))


def _joined(left: Piece, right: Piece, span: Span) -> Piece:
    if left.tensor and right.tensor:
        raise fault("two-labels", f"both `{left.tensor}:` and `{right.tensor}:` fill one position", span, help="keep one label")
    return product(left, right)


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
            if any(low[0] * (low[1] - 1) >= high[0] for low, high in zip(steps, steps[1:], strict=False)):
                faults[tensor.name, axis] = fault("repeated-axis", f"axis `{axis}` of `{tensor.name}` is stored along two positions", rule.rule.span, notes=note, help=f"mention `{axis}` once")
    if faults:
        raise MappingError(*(d for f in faults.values() for d in f.diagnostics))


def _stripped(piece: Piece) -> Piece:
    if piece.tensor is None:
        return Piece(None, (), piece.base, tuple(replace(x, axis=None, step=0) for x in piece.loops if x.extent > 1))
    return replace(piece, loops=tuple(x for x in piece.loops if x.extent > 1))
