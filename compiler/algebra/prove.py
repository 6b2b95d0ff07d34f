"""Lowered rules in, a proof out, or the faults that keep a plan from existing. Checked on boxes, not on data.

For one layout it holds, after this pass, that
  - every element of every stored tensor is exactly one model element, one declared copy, or padding;
  - every element of every model tensor is stored by the rules exactly once, further copies apart;
  - a copy repeats an element that is stored; no two rules claim one name in one file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

from ...dsl.diagnostic import Diagnostic, Label, MappingError
from ...dsl.tree import Span
from ...runtime.plan.plan import Box, Proof
from ..settle.resolve import Side
from ..settle.sizes import Tensor
from .clash import clashes
from .digits import Digit, TooIrregularError, Vector, by_step, nested, overlap
from .lower import Lowered
from .pieces import AT, COORDS, COPY, Piece

MOST_COPIES = 1_000_000  # of one element, when pieces number them differently


def prove(side: Side, lowered: tuple[Lowered, ...]) -> Proof:
    faults = clashes(lowered)
    tensors = stored = padding = copies = 0
    for item in lowered:
        faults += _regular(item.rule.rule.span, tiling_faults, item)
        if item.rule.tied:
            continue
        count = sum(_size(box) for box in item.stored.boxes)
        tensors += count
        stored += count * _product(item.stored.shape)
        padding += sum(p.count for p in item.pieces if p.tensor is None or p.padding)
    by_tensor: dict[str, list[tuple[Lowered, Piece]]] = defaultdict(list)
    for item in lowered:
        if not item.rule.tied:
            for piece in item.pieces:
                if piece.tensor is not None and not piece.padding:
                    by_tensor[piece.tensor].append((item, piece))
    faults += _missing_faults(side, by_tensor)
    model = 0
    for name, tensor in side.sizes.tensors.items():
        own = by_tensor[name]
        if own:
            faults += _regular(own[0][0].rule.rule.span, _coverage_faults, tensor, own)
        model += tensor.elements
        copies += sum(p.count for _, p in own) - tensor.elements
    if faults:
        raise MappingError(*dict.fromkeys(faults))
    return Proof(tensors, model, copies, padding, stored)


def _regular(span: Span, find: Callable[..., list[Diagnostic]], *what: object) -> list[Diagnostic]:
    try:
        return find(*what)
    except TooIrregularError:
        return [too_irregular(span)]


def too_irregular(*spans: Span) -> Diagnostic:
    return Diagnostic(
        "too-irregular", "this is cut into more blocks than can be followed one by one", tuple(Label(s) for s in dict.fromkeys(spans)),
        help="let one size divide the other: choose another degree, or pad to a multiple",
    )  # fmt: skip


def _product(shape: Iterable[int]) -> int:
    out = 1
    for n in shape:
        out *= n
    return out


def _size(box: Box) -> int:
    return _product(extent for extent, _ in box.loops)


# --- every stored element, once -------------------------------------------------------------------


def tiling_faults(item: Lowered) -> list[Diagnostic]:
    """The pieces of one rule are disjoint, lie inside, and are as many elements as the stored tensors hold."""
    size = _product(item.stored.shape)
    limits = [1] * len(item.stored.coords)
    for box in item.stored.boxes:
        for k in range(len(limits)):
            limits[k] = max(limits[k], 1 + box.first[k] + sum((n - 1) * move[k] for n, move in box.loops))
    weights = [1] * len(limits)
    weight = size
    for k in reversed(range(len(limits))):
        weights[k] = weight
        weight *= limits[k]

    def line(v: Vector) -> int:
        return v[AT] + sum(w * c for w, c in zip(weights, v[COORDS:], strict=True))

    span = item.rule.rule.span
    lines = []
    for piece in item.pieces:
        if not _inside(piece, size, limits):
            return [_fault("stored-outside", f"`{item.stored.name}` is filled beyond its end", span)]
        digits = by_step([(x.extent, line(x.move), ()) for x in piece.loops])
        if not nested(digits):
            return [_fault("stored-twice", f"`{item.stored.name}` has elements that are filled twice", span)]
        lines.append((line(piece.base), digits))
    if _clash(lines):
        return [_fault("stored-twice", f"`{item.stored.name}` has elements that are filled twice", span)]
    boxes = [(line((0, 0, *b.first)), by_step([(n, line((0, 0, *m)), ()) for n, m in b.loops] + [(size, 1, ())])) for b in item.stored.boxes]
    for (at, digits), piece in zip(lines, item.pieces, strict=True):
        if sum(overlap(begin - at, digits, box) for begin, box in boxes) != piece.count:
            return [_fault("stored-outside", f"`{item.stored.name}` is filled where no tensor is", span)]
    have = sum(p.count for p in item.pieces)
    want = size * sum(_size(box) for box in item.stored.boxes)
    if have != want:
        return [_fault("stored-gap", f"{want - have} of {want} elements of `{item.stored.name}` are filled by nothing", span, help="pad them, or store what is missing")]
    return []


def _inside(piece: Piece, size: int, limits: list[int]) -> bool:
    """Whether offsets and coordinates stay within their ranges. Places only move forwards."""
    low = (piece.base[AT], *piece.base[COORDS:])
    moves = [(x.extent - 1, (x.move[AT], *x.move[COORDS:])) for x in piece.loops]
    high = [a + sum(n * m[k] for n, m in moves) for k, a in enumerate(low)]
    return min(low) >= 0 and all(h < n for h, n in zip(high, (size, *limits), strict=True))


def _clash(lines: list[tuple[int, tuple[Digit, ...]]]) -> bool:
    """Whether two of these boxes on a line share a point; boxes sorted by where they begin."""
    boxes = sorted(lines, key=lambda x: x[0])
    ends = [at + sum((n - 1) * s for n, s, _ in digits) for at, digits in boxes]
    for i, (at, digits) in enumerate(boxes):
        for j in range(i + 1, len(boxes)):
            if boxes[j][0] > ends[i]:
                break
            if overlap(boxes[j][0] - at, digits, boxes[j][1]):
                return True
    return False


# --- every model element, once, and its copies ----------------------------------------------------


def model_line(tensor: Tensor, piece: Piece) -> tuple[int, tuple[Digit, ...]]:
    """A piece as a box on the tensor's row-major line; loops that step no axis are left out."""
    weight, weights = 1, {}
    for axis, n in zip(reversed(tensor.axes), reversed(tensor.shape), strict=True):
        weights[axis] = weight
        weight *= n
    digits = by_step([(x.extent, x.step * weights[x.axis], ()) for x in piece.loops if x.axis is not None])
    return sum(weights[a] * i for a, i in piece.first), digits


def first_copy(piece: Piece) -> Piece | None:
    """The part of a piece that is the copy numbered 0, which is the one that reading takes."""
    if piece.base[COPY]:
        return None
    return Piece(piece.tensor, piece.first, piece.base, tuple(x for x in piece.loops if not x.move[COPY]), piece.padding)


def _read(own: list[tuple[Lowered, Piece]]) -> list[tuple[Lowered, Piece]]:
    """The pieces that reading takes: copy 0 of rules that are not copies themselves."""
    return [(item, first) for item, p in own if not item.rule.copy and (first := first_copy(p)) is not None]


def _missing_faults(side: Side, by_tensor: Mapping[str, list[tuple[Lowered, Piece]]]) -> list[Diagnostic]:
    """Tensors without a place, in one fault; those that only `copy` rules store, each where it is copied."""
    copied = [n for n in side.sizes.tensors if by_tensor.get(n) and not _read(by_tensor[n])]
    faults = [
        Diagnostic(
            "only-copied", f"`{name}` is stored by `copy` rules alone, which are not read",
            tuple(Label(s) for s in dict.fromkeys(item.rule.rule.span for item, _ in by_tensor[name])), help="remove `copy` from one",
        )
        for name in copied
    ]  # fmt: skip
    missing = [t for n, t in side.sizes.tensors.items() if not by_tensor.get(n)]
    if missing:
        names = [f"`{t.name}`" for t in missing]
        text = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
        notes = tuple(f"{t.name} [{', '.join(f'{a} {n}' for a, n in zip(t.axes, t.shape, strict=True))}]" for t in missing[:5])
        more = (f"and {len(missing) - 5} more",) if len(missing) > 5 else ()
        labels = (Label(side.span),) if side.span.line else ()
        help = f"write rules for what is missing in layout `{side.layout}`, or convert to a layout that has them"
        faults.append(Diagnostic("not-stored", f"layout `{side.layout}` has no place for {text}", labels, notes + more, help))
    return faults


def _within(tensor: Tensor, piece: Piece) -> bool:
    for axis, size in zip(tensor.axes, tensor.shape, strict=True):
        first = piece.index(axis)
        if first < 0 or first + sum((x.extent - 1) * x.step for x in piece.loops if x.axis == axis) >= size:
            return False
    return True


def _picked(tensor: Tensor, piece: Piece) -> bool:
    """Whether a piece holds only indices at which the tensor exists."""
    for axis, indices in tensor.picked:
        found = [piece.index(axis)]
        for loop in piece.loops:
            if loop.axis == axis:
                found = [at + i * loop.step for at in found for i in range(loop.extent)]
        if not set(found) <= set(indices):
            return False
    return True


def _coverage_faults(tensor: Tensor, own: list[tuple[Lowered, Piece]]) -> list[Diagnostic]:
    size = _product(tensor.shape)
    read = _read(own)
    if not read:
        return []
    for item, piece in own:
        if not _within(tensor, piece) or not _picked(tensor, piece):
            return [_fault("model-outside", f"a rule holds what `{tensor.name}` does not have", item.rule.rule.span)]
    lines = [model_line(tensor, p) for _, p in read]
    spans = [item.rule.rule.span for item, _ in read]
    for (_, digits), span in zip(lines, spans, strict=True):
        if not nested(digits):
            return [_fault("model-twice", f"`{tensor.name}` has elements that are stored twice", span, help="declare a copy with `copies` or `copy`")]
    have, wanted = sum(p.count for _, p in read), tensor.elements
    if _clash(lines):
        labels = tuple(Label(s, "stored here") for s in dict.fromkeys(spans))
        return [Diagnostic("model-twice", f"`{tensor.name}` has elements that are stored twice", labels, help='write `copy "..." = ...` for the second place')]
    if have != wanted:
        return [_fault("model-gap", f"{wanted - have} of {wanted} elements of `{tensor.name}` are stored nowhere", spans[0], help="store the rest of its axes too: a part or a range of an index is left out")]
    groups: dict[int, list[tuple[Lowered, Piece]]] = defaultdict(list)
    for item, piece in own:
        groups[id(item)].append((item, piece))
    return [fault for group in groups.values() for fault in _copy_faults(tensor, size, group)]


def _copy_faults(tensor: Tensor, size: int, own: list[tuple[Lowered, Piece]]) -> list[Diagnostic]:
    """Every copy that one rule makes holds the same elements, each once.

    Copies are laid end to end on one line: boxes that do not meet there, and as many elements in all as the
    first copy has times the copies' number, leave no copy short.
    """
    span = own[0][0].rule.rule.span
    lines = []
    numbered: set[tuple[int, tuple[Digit, ...]]] = set()
    for _, piece in own:
        at, digits = model_line(tensor, piece)
        if not nested(digits):
            return [_fault("copy-overlaps", f"a copy of `{tensor.name}` holds elements twice", span)]
        copies = by_step([(x.extent, x.move[COPY], ()) for x in piece.loops if x.move[COPY]])
        if not nested(copies):
            return [_fault("copies-numbered-twice", f"copies of `{tensor.name}` are numbered twice", span)]
        lines.append((piece.base[COPY] * size + at, (*((n, step * size, ()) for n, step, _ in copies), *digits)))
        numbered.add((piece.base[COPY], copies))
    first = sum(p.count for _, piece in own if (p := first_copy(piece)) is not None)
    if _clash(lines) or sum(p.count for _, p in own) != first * _distinct(numbered):
        return [_fault("copies-unequal", f"some elements of `{tensor.name}` are copied more often than others", span, help="let `copies` repeat all that the rule stores of it")]
    return []


def _distinct(numbered: set[tuple[int, tuple[Digit, ...]]]) -> int:
    """How many copy numbers there are; pieces mostly number theirs alike. 0 beyond what any layout copies."""
    if len(numbered) == 1:
        ((_, copies),) = numbered
        return _product(n for n, _, _ in copies)
    numbers: set[int] = set()
    for base, copies in numbered:
        if len(numbers) + _product(n for n, _, _ in copies) > MOST_COPIES:
            return 0
        found = [base]
        for extent, step, _ in copies:
            found = [n + i * step for n in found for i in range(extent)]
        numbers.update(found)
    return len(numbers)


def _fault(code: str, title: str, span: Span, *, help: str = "") -> Diagnostic:
    return Diagnostic(code, title, (Label(span),), help=help)
