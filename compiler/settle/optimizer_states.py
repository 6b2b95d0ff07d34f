"""A resolved layout in; the layout of the state that an optimizer keeps for its tensors, out. And two plans as one.

Every kind of state has a twin of each model tensor, with the same axes, and of each rule, with the same dimensions,
the first of them cut over the ranks that share the work. So state moves wherever its parameter moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ...dsl.tree import Hole, Index, Let, Literal, Pad, Pattern, Slice
from ...dsl.walk import rewritten
from ...runtime.plan.plan import Plan, Proof, Step
from ...runtime.plan.plan import Side as PlanSide
from ..values.lets import labels
from .resolve import LiveRule, Side
from .sizes import Sizes, Tensor


def name_of_state(kind: str, name: str) -> str:
    """What the state of the stored tensor `name` is called in a plan; a name pattern gives a name pattern."""
    return f"{kind}:{name}"


def cut_state(side: Side, kinds: Mapping[str, str], degree: int, buffers: frozenset[str]) -> Side:
    """State of its parameter's shape, cut over `degree` ranks: `kinds` with their dtypes. `buffers` have none."""
    owners = [rule for rule in side.rules if not _tensors(rule, side) <= buffers]
    rules = [_cut(rule, kind, dtype, degree, side) for kind, dtype in kinds.items() for rule in owners]
    tensors = {
        f"{kind}.{t.name}": Tensor(f"{kind}.{t.name}", t.axes, t.shape, t.picked)
        for kind in kinds for t in side.sizes.tensors.values() if t.name not in buffers
    }  # fmt: skip
    absent = frozenset(f"{kind}.{name}" for kind in kinds for name in side.sizes.absent)
    return _beside(side, rules, replace(side.sizes, tensors=tensors, absent=absent), degree)


def whole_state(side: Side, kinds: Mapping[str, str], degree: int, buffers: frozenset[str]) -> Side:
    """State of one element, the same on all ranks: one for each stored tensor, by the axes that its name spells."""
    rules: list[LiveRule] = []
    tensors: dict[str, Tensor] = {}
    for rule in (rule for rule in side.rules if not _tensors(rule, side) <= buffers):
        pattern = rule.rule.names[0]
        axes = tuple(dict.fromkeys(p.axis for p in pattern.parts if isinstance(p, Hole) and p.axis not in side.ranks))
        spelled = "".join(p if isinstance(p, str) else "{" + p.axis + "}" for p in pattern.parts)
        for kind, dtype in kinds.items():
            name = f"{kind}.{spelled}"
            tensors[name] = Tensor(name, axes, tuple(side.sizes.values[axis] for axis in axes), rule.picked)
            rules.append(replace(_twin(rule, kind, dtype), tensor=name, renames={}))
            rules[-1] = replace(rules[-1], rule=replace(rules[-1].rule, dims=()))
    return _beside(side, rules, replace(side.sizes, tensors=tensors, absent=frozenset()), degree)


def _tensors(rule: LiveRule, side: Side) -> set[str]:
    """The model tensors that a rule stores."""
    found = {rule.renames.get(label, label) for label in _labels(rule, side)}
    return found | ({rule.tensor} if rule.tensor else set())


def _labels(rule: LiveRule, side: Side) -> Iterable[str]:
    return labels(rule.rule.dims, [Let(name, value) for name, value in side.lets.items()])


def _twin(rule: LiveRule, kind: str, dtype: str) -> LiveRule:
    pattern = rule.rule.names[0]
    name = Pattern((name_of_state(kind, ""), *pattern.parts), pattern.span)
    own = replace(rule.rule, names=(name,), elementwise=(), dtype=dtype, optional=False)
    return LiveRule(own, rule.tensor, rule.renames, rule.block, picked=rule.picked)


def _cut(rule: LiveRule, kind: str, dtype: str, degree: int, side: Side) -> LiveRule:
    assert side.state is not None
    first, *others = map(_padded_with_zeros, rule.rule.dims)
    cut = Slice(Pad(first, Literal(degree), span=rule.rule.span), side.state.rank, rule.rule.span)
    twin = _twin(rule, kind, dtype)
    return replace(
        twin, rule=replace(twin.rule, dims=(cut, *others)), tensor=rule.tensor and f"{kind}.{rule.tensor}",
        renames={label: f"{kind}.{rule.renames.get(label, label)}" for label in _labels(rule, side)},
    )  # fmt: skip


def _padded_with_zeros(index: Index) -> Index:
    """New rows have no history: where the parameter's are filled with a mean, its state's are zeros."""
    return rewritten(index, lambda node: replace(node, fill="zero") if isinstance(node, Pad) and node.fill != "repeat last" else node)


def _beside(side: Side, rules: list[LiveRule], sizes: Sizes, degree: int) -> Side:
    assert side.state is not None
    return replace(
        side, sizes=sizes, ranks={**side.ranks, side.state.rank: degree}, shared=frozenset(), rules=tuple(rules), ignored=(), objects=(),
        files=(side.state.file,), carry=(), texts=(), state=None, lets={name: _padded_with_zeros(value) for name, value in side.lets.items()},
    )  # fmt: skip


def join(one: Plan, *others: Plan) -> Plan:
    """One plan that does the work of several; ranks, files and what else is of a whole checkpoint are those of the first."""
    for other in others:
        left, right = len(one.source.stored), len(one.target.stored)
        steps = tuple(_moved(step, left, right) for step in other.steps)
        checks = tuple(_moved(step, left, left) for step in other.checks)
        one = replace(
            one, source=_joined(one.source, other.source), target=_joined(one.target, other.target),
            steps=one.steps + steps, checks=one.checks + checks,
        )  # fmt: skip
    return one


def _moved(step: Step, source: int, target: int) -> Step:
    return replace(step, source=None if step.source is None else step.source + source, target=step.target + target)


def _joined(one: PlanSide, other: PlanSide) -> PlanSide:
    a, b = one.proof, other.proof
    proof = Proof(a.tensors + b.tensors, a.model + b.model, a.copies + b.copies, a.padding + b.padding, a.stored + b.stored)
    ranks = tuple({**dict(one.ranks), **dict(other.ranks)}.items())
    return replace(one, ranks=ranks, stored=one.stored + other.stored, proof=proof)
