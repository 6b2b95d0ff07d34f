"""The index algebra, slowly and obviously: every stored element listed one by one, with no loop algebra at all.

`contents(side)` gives, for each stored tensor (file, name), the list of what each element holds: the number
of a model element, or None for a zero. It shares only the syntax tree and the resolved sizes with the
compiler; lowering, proving and composing are checked against it.
"""

from __future__ import annotations

from itertools import product

from ckptc.compiler.settle.resolve import LiveRule, Side
from ckptc.compiler.values.scope import evaluate
from ckptc.dsl.tree import AxisRef, Copies, Hole, Index, One, Pad, Slice, Sum

# what one position holds: (label, {axis: index}) with label "" if unlabelled; None for a zero
Held = tuple[str, dict[str, int]] | None


def element_numbers(side: Side) -> dict[str, int]:
    """The number of each tensor's first element, tensors one after the other."""
    numbers, at = {}, 0
    for name, tensor in side.sizes.tensors.items():
        numbers[name] = at
        size = 1
        for n in tensor.shape:
            size *= n
        at += size
    return numbers


def contents(side: Side) -> dict[tuple[str, str], tuple[tuple[int, ...], list[int | None]]]:
    """(file, name) -> (shape, what each element of the row-major tensor holds)."""
    out: dict[tuple[str, str], tuple[tuple[int, ...], list[int | None]]] = {}
    for rule in side.rules:
        if rule.tied:
            continue
        for ranks in product(*(range(n) for n in side.ranks.values())):
            at = dict(zip(side.ranks, ranks, strict=True))
            for spelled, fixed in _named(rule, side, at):
                whole = _tensor(rule, side, at, fixed)
                if whole is None:
                    continue
                shape, held = whole
                values = {**at, **spelled}
                name = _spell(rule.rule.names[0].parts, values)
                file = _spell(side.files[0].parts, values) if side.files else ""
                assert (file, name) not in out
                out[file, name] = (shape, held)
    return out


def _spell(parts, values) -> str:
    return "".join(p if isinstance(p, str) else str(values[p.axis]).zfill(p.width) for p in parts)


def _owned(side: Side, at: dict[str, int]) -> tuple[int, ...]:
    return side.stages.owned[at[side.stages.rank]]


def _named(rule: LiveRule, side: Side, at: dict[str, int]):
    """Every way to spell the name on this rank: the numbers spelled, and the indices they fix."""
    holes = {p.axis: p for p in rule.rule.names[0].parts if isinstance(p, Hole) and p.axis not in side.ranks}
    turn = next((name for name in side.turns if name in holes), None)
    holes.pop(turn, None)
    options = []
    uses_stage = False
    for axis, hole in holes.items():
        offset = evaluate(hole.offset, side.scope) if hole.offset else 0
        if side.stages and axis == side.stages.axis and hole.rank in (None, side.stages.rank):
            uses_stage = True
            rows = [(axis, (i if hole.rank is None else local) + offset, i) for local, i in enumerate(_owned(side, at))]
        elif hole.rank is not None:
            local = side.sizes.values[axis] // side.ranks[hole.rank]
            rows = [(axis, j + offset, at[hole.rank] * local + j) for j in range(local)]
        else:
            rows = [(axis, i + offset, i) for i in range(side.sizes.values[axis])]
        options.append(rows)
    if side.stages and not uses_stage and rule.rule.on in ("first", "last"):
        stage = 0 if rule.rule.on == "first" else side.ranks[side.stages.rank] - 1
        if at[side.stages.rank] != stage:
            return
    for combination in product(*options):
        spelled, fixed = {a: n for a, n, _ in combination}, {a: i for a, _, i in combination}
        if turn is None:
            yield spelled, fixed
        elif uses_stage:
            parts = side.stages.by_turns(at[side.stages.rank])
            number, part = next((t, part) for t, part in enumerate(parts) if fixed[side.stages.axis] in part)
            yield spelled | {turn: number, side.stages.axis: part.index(fixed[side.stages.axis])}, fixed
        else:
            last = side.turns[turn] - 1
            for number in {"first": [0], "last": [last]}.get(rule.rule.on, range(last + 1)):
                yield spelled | {turn: number}, fixed


def _tensor(rule: LiveRule, side: Side, at, fixed):
    dims = [_list(d, side, at) for d in rule.rule.dims]
    numbers = element_numbers(side)
    held: list[int | None] = []
    for combination in product(*dims):
        whole = _merge([*combination, ("", fixed)])
        if whole is None:
            held.append(None)
            continue
        label, index = whole
        name = rule.renames.get(label, label) or rule.tensor
        if name in side.sizes.absent:
            return None
        tensor = side.sizes.tensors[side.sizes.tied.get(name, name)]
        number = 0
        if any(index[axis] >= n for axis, n in zip(tensor.axes, tensor.shape, strict=True)):
            held.append(None)  # past the end of a padded axis
            continue
        for axis, n in zip(tensor.axes, tensor.shape, strict=True):
            number = number * n + index[axis]
        held.append(numbers[tensor.name] + number)
    return tuple(len(d) for d in dims), held


def _merge(parts) -> Held:
    label, index = "", {}
    for part in parts:
        if part is None:
            return None
        label = label or part[0]
        for axis, i in part[1].items():
            index[axis] = index.get(axis, 0) + i
    return label, index


def _list(index: Index, side: Side, at: dict[str, int]) -> list[Held]:
    """What stands at each position of one dimension on this rank."""
    match index:
        case One():
            return [("", {})]
        case Copies(count):
            return [("", {})] * evaluate(count, side.scope)
        case AxisRef(name) if name in side.lets:
            return _list(side.lets[name], side, at)
        case AxisRef(name) if name in side.parts:
            part = side.parts[name]
            return [("", {part.axis: i * part.step}) for i in range(part.extent)]
        case AxisRef(name):
            return [("", {name: i}) for i in range(side.sizes.values[name])]
        case Slice(AxisRef(name), rank) if side.stages and name == side.stages.axis and rank == side.stages.rank:
            return [("", {name: i}) for i in _owned(side, at)]
        case Slice(operand, rank):
            whole = _list(operand, side, at)
            n = len(whole) // side.ranks[rank]
            return whole[at[rank] * n : (at[rank] + 1) * n]
        case Pad(operand, amount, exact, fill):
            whole = _list(operand, side, at)
            n = evaluate(amount, side.scope)
            total = n if exact else -(-len(whole) // n) * n
            return whole + [None if fill == "zero" else whole[-1]] * (total - len(whole))
        case Sum(terms):
            out: list[Held] = []
            for term in terms:
                for combination in product(*(_list(f, side, at) for f in term.factors)):
                    whole = _merge(combination)
                    out.append(whole if whole is None or term.label is None else (term.label, whole[1]))
            return out
    raise AssertionError(index)
