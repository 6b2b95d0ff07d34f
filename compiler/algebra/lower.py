"""Rules in, pieces out: every stored tensor of a layout as affine boxes of model elements.

A dimension lowers to *pieces*, boxes of elements with their offsets (see `index`). Axes spelled in a name and
ranks move a coordinate instead of an offset. So layers, experts and ranks stay loops, and a layout of 92,000
tensors is a few dozen pieces.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ...dsl.diagnostic import Diagnostic, MappingError, fault
from ...dsl.tree import Hole, Index, Rule, Slice, Span, Sum
from ...runtime.plan.plan import Box, Stored, made_name
from ..settle.rank_digits import plain
from ..settle.resolve import LiveRule, MadeTensor, Side, unknown_tensor
from ..settle.sizes import Tensor
from ..values.lets import mentions
from ..values.scope import LARGEST
from .index import RuleState, index_pieces, is_stage_axis, joined, sliced_by, written_out
from .pieces import Loop, Piece, bounded, check_few, product, scaled_offset
from .spell import box_of, check_names, fixed_ranks, format_of, named, rank_pieces

MOST_TENSORS = 2**22  # of one rule, over all ranks


@dataclass(frozen=True)
class MeanTensor:
    """The mean of a tensor over one of its axes. `of` is that tensor with this axis first."""

    tensor: Tensor
    of: Tensor
    span: Span


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


def lower_made(made: MadeTensor) -> Lowered:
    """A tensor that no file holds, as if one did: under the name that plans know it by."""
    return lower_whole(made.tensor, made_name(made.tensor.name), made.span)


def lower_whole(tensor: Tensor, name: str, span: Span) -> Lowered:
    """A tensor that is stored as it stands in the model."""
    stored = Stored(name, "", (), (Box(()),), tensor.shape, origin=f"{span.file}:{span.line}")
    loops, stride = [], 1
    for axis, extent in zip(reversed(tensor.axes), reversed(tensor.shape), strict=True):
        loops.append(Loop(extent, axis, 1, (stride, 0)))
        stride *= extent
    piece = Piece(tensor.name, tuple((axis, 0) for axis in tensor.axes), (0, 0), tuple(x for x in loops if x.extent > 1))
    return Lowered(stored, (piece,), LiveRule(Rule((), tensor.name, (), span=span), tensor.name, {}, 0))


def means(lowered: Iterable[Lowered], side: Side) -> tuple[MeanTensor, ...]:
    """The means that pieces of a side are filled up with, each once."""
    found: dict[str, MeanTensor] = {}
    for item in lowered:
        for piece in item.pieces:
            if piece.mean and piece.tensor is not None:
                of = side.sizes.tensors[piece.tensor]
                if of.picked:
                    raise fault(
                        "mean-of-some", f"`{of.name}` exists at some indices of an axis alone, and such a tensor has no mean here", item.rule.rule.span,
                        help="pad with zeros",
                    )  # fmt: skip
                sizes = dict(zip(of.axes, of.shape, strict=True))
                rest = tuple(axis for axis in of.axes if axis != piece.mean)
                tensor = Tensor(piece.source, rest, tuple(sizes[axis] for axis in rest))
                over = Tensor(of.name, (piece.mean, *rest), (sizes[piece.mean], *tensor.shape))
                found[tensor.name] = MeanTensor(tensor, over, item.rule.rule.span)
    return tuple(found.values())


def _stage_counts(rule: LiveRule, side: Side) -> list[int | None]:
    """Stages of unequal length give tensors of unequal shape where the local block is stacked in the shape."""
    if side.stages is None or not any(_slices_stage(d, side) for d in rule.rule.dims):
        return [None]
    return [*sorted({len(s) for s in side.stages.owned} - {0})]


def _slices_stage(index: Index, side: Side) -> bool:
    ranks = {side.stages.rank} if side.stages is not None else set()
    return any(isinstance(node, Slice) and node.rank in ranks and is_stage_axis(node.operand, side) for node in written_out(index, side))


def _lower_rule(rule: LiveRule, side: Side, count: int | None) -> Lowered | None:
    pattern = rule.rule.names[0]
    holes = [p for p in pattern.parts if isinstance(p, Hole)]
    axes = list(dict.fromkeys(h.axis for h in holes if h.axis not in side.ranks))
    state = RuleState(side, rule, (*side.ranks, *axes), count)
    check_names(rule.rule, side, state.coords)
    zero = state.vector()
    places = [Piece("", (), zero, ())]
    touched: set[str] = set()
    turns = {name: n for name, n in side.turns.items() if name in axes}
    for hole in {h.axis: h for h in holes if h.axis in axes and h.axis not in turns}.values():
        spelled = named(hole, state, touched)
        places = check_few([product(p, n) for p in places for n in spelled], rule.rule.span)
    for axis, _ in rule.picked:
        if axis not in axes:
            raise fault(
                "where-in-shape", f"only some of `{axis}` is there, and this rule's name does not spell it", rule.rule.span,
                help=f"spell it in the name as {{{axis}}}: a stored tensor has all of an axis in its shape, or nothing",
            )  # fmt: skip
    spelled_by = set(touched)
    for dim in rule.rule.dims:
        touched.update(d.name for rank in sliced_by(dim, side) for d in side.digits(rank))
    fixed = fixed_ranks(rule, side, touched)
    instances = places
    by_rank = [d for rank in side.ranks for d in side.digits(rank)] + [d for turn, n in turns.items() for d in plain(turn, n)]
    for digit in dict.fromkeys(by_rank):
        ranked = rank_pieces(digit, state, fixed, touched, spelled_by)
        instances = [product(p, r) for p in instances for r in ranked.instances]
        places = [product(p, r) for p in places for r in ranked.copies]
    shape: list[int] = []
    dims: list[list[Piece]] = []
    for dim in rule.rule.dims:
        size, pieces = index_pieces(dim, state)
        shape.append(size)
        dims.append(pieces)
    viewed = [index_pieces(dim, RuleState(side, rule, state.coords, count))[0] for dim in rule.rule.view]
    if viewed and math.prod(viewed) != math.prod(shape):
        raise fault(
            "view-size", f"the view has {math.prod(viewed)} elements, and the rule stores {math.prod(shape)}", rule.rule.span,
            help="a view is another shape of the same elements",
        )  # fmt: skip
    if math.prod(shape) >= LARGEST:
        raise fault("too-many-elements", "this rule's tensor has more elements than any checkpoint", rule.rule.span, help="check its sizes and numbers of copies")
    body = [Piece("", (), zero, ())]
    stride = 1
    for size, pieces in zip(reversed(shape), reversed(dims), strict=True):
        body = check_few([joined(scaled_offset(p, stride), b, rule.rule.span) for p in pieces for b in body], rule.rule.span)
        stride *= size
    pieces = check_few([_filled(product(b, p), rule, side) for p in places for b in body], rule.rule.span)
    live = [p for p in pieces if p.tensor is not None]
    absent = {p.tensor for p in live if p.tensor in side.sizes.absent}
    if live and all(p.tensor in absent for p in live):
        return None
    if absent:
        present = sorted({str(p.tensor) for p in live} - {str(t) for t in absent})
        raise fault(
            "partly-absent",
            f"{_listed(map(str, absent))} {'is' if len(absent) == 1 else 'are'} absent, but stored in one tensor with {_listed(present)}",
            rule.rule.span,
            help="the checkpoint must have all of them or none",
        )
    _check_axes(pieces, rule, side)
    pieces = [q for p in pieces for q in _within(p, side)]
    boxes = tuple(box_of(p) for p in instances)
    count = sum(math.prod(n for n, _ in box.loops) for box in boxes)
    if count > MOST_TENSORS:
        raise fault(
            "too-many-tensors", f"this rule names {count} tensors, more than any checkpoint has", rule.rule.names[0].span,
            help="check the sizes of the axes that the name spells",
        )  # fmt: skip
    stored = Stored(
        format_of(pattern),
        format_of(side.files[0]) if side.files else "",
        state.coords,
        boxes,
        tuple(viewed or shape),
        rule.block,
        rule.rule.dtype,
        tuple(format_of(n) for n in rule.rule.names[1:]),
        rule.tied or rule.rule.optional,
        f"{rule.rule.span.file}:{rule.rule.span.line}",
        tuple(format_of(f) for f in side.files[1:]),
        tuple(rank for rank in side.ranks if rank in side.shared and not touched & {d.name for d in side.digits(rank)}),
        bool(live) and all(p.tensor in side.buffers for p in live),
    )
    return Lowered(stored, tuple(_stripped(p) for p in pieces), rule)


# --- what fills a piece ---------------------------------------------------------------------------


def _filled(piece: Piece, rule: LiveRule, side: Side) -> Piece:
    if piece.tensor is None:
        return piece
    name = piece.tensor or rule.tensor
    if name is None:
        raise fault("unlabelled-part", "no tensor is named for a part of this rule", _unlabelled(rule.rule), help='name one: `"..." = tensor [...]`, or label each summand')
    name = side.sizes.tied.get(name, name)
    if name not in side.sizes.tensors and name not in side.sizes.absent:
        raise unknown_tensor(name, side.family, side.sizes.tensors, rule.rule.span)
    return replace(piece, tensor=name)


def _within(piece: Piece, side: Side) -> list[Piece]:
    """The parts of a padded axis may run past its end: what does is padding."""
    out = [piece]
    if piece.tensor is not None:
        tensor = side.sizes.tensors[piece.tensor]
        for axis, size in zip(tensor.axes, tensor.shape, strict=True):
            out = [q for p in out for q in (bounded(p, axis, size) if p.tensor is not None else (p,))]
    return out


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{n}`" for n in sorted(names))


def _unlabelled(rule: Rule) -> Span:
    """The summand without a label beside others that have one."""
    for dim in rule.dims:
        if isinstance(dim, Sum) and any(t.label for t in dim.terms):
            for term in dim.terms:
                if not term.label:
                    return term.span
    return rule.span


def _mention(rule: Rule, axis: str, number: int, side: Side) -> Span:
    """Where a rule mentions an axis, if the rule's own text does so exactly `number` times: the last of these places."""
    refs = [(ref.name, ref.span) for dim in rule.dims for ref in mentions(dim)]
    holes = [(p.axis, p.span) for p in rule.names[0].parts if isinstance(p, Hole)]
    places = [span for name, span in holes + refs if name == axis or (name in side.parts and side.parts[name].axis == axis)]
    return places[-1] if len(places) == number else rule.span


def _check_axes(pieces: list[Piece], rule: LiveRule, side: Side) -> None:
    faults: dict[tuple[str, str], MappingError] = {}
    for piece in pieces:
        if piece.tensor is None:
            continue
        tensor = side.sizes.tensors[piece.tensor]
        used = {a for a, _ in piece.first} | ({piece.mean} if piece.mean else set())
        note = (f"{tensor.name} [{', '.join(tensor.axes)}]",)
        for axis in tensor.axes:
            if axis not in used:
                faults[tensor.name, axis] = fault("missing-axis", f"this rule stores `{tensor.name}` but says nothing of its axis `{axis}`", rule.rule.span, notes=note, help=f"put `{axis}` where its elements are stored, or spell it in the name as {{{axis}}}")
        for axis in used - set(tensor.axes):
            faults[tensor.name, axis] = fault("foreign-axis", f"`{tensor.name}` has no axis `{axis}`", _mention(rule.rule, axis, 1, side), notes=note, help=f"remove `{axis}` from this rule")
        for axis in tensor.axes:
            steps = sorted((x.step, x.extent) for x in piece.loops if x.axis == axis and x.extent > 1)
            if any(low[0] * (low[1] - 1) >= high[0] for low, high in itertools.pairwise(steps)):
                faults[tensor.name, axis] = fault("repeated-axis", f"axis `{axis}` of `{tensor.name}` is stored along two positions", _mention(rule.rule, axis, 2, side), notes=note, help=f"mention `{axis}` once")
    if faults:
        raise MappingError(*(d for f in faults.values() for d in f.diagnostics))


def _stripped(piece: Piece) -> Piece:
    if piece.tensor is None:
        return Piece(None, (), piece.base, tuple(replace(x, axis=None, step=0) for x in piece.loops if x.extent > 1))
    return replace(piece, loops=tuple(x for x in piece.loops if x.extent > 1))
