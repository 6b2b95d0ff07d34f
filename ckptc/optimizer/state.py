"""A compiled conversion and zero1 optimizer state beside its source in; the plan that converts both, out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..compiler.algebra.spell import format_of
from ..compiler.link.flat import Family
from ..compiler.pipeline import Compiled, compile_sides
from ..compiler.settle.optimizer_states import cut_state, join, name_of_state, whole_state
from ..compiler.settle.resolve import Side
from ..dsl.tree import Hole
from ..runtime.binding.find_tensors import match
from ..runtime.checkpoint.checkpoint import Checkpoint
from ..runtime.fault import Fault
from ..runtime.files.window import Entry
from ..runtime.formats.torch.tensor_tree import Leaf, first_difference
from ..runtime.plan.expand import families
from ..runtime.plan.plan import Plan
from ..runtime.plan.plan import Side as PlanSide
from .folder import FOLDER, state_folder
from .parameter_order import Parameter, Ranks, Split, find_split, numbered, order_like
from .zero1_files import ZeroState, file_of, open_zero_state, prefix_of

MASTER, STEP = "sharded_master_weights", "step"


@dataclass(frozen=True)
class WithState:
    """The plan, the source with its state's tensors, and the trees of the target's state files."""

    plan: Plan
    checkpoint: Checkpoint
    trees: Mapping[str, Any]


def add_state(compiled: Compiled, family: Family, checkpoint: Checkpoint, dp: int | None) -> WithState:
    """Raises `Fault` where state cannot follow its parameters."""
    for side in (compiled.source, compiled.target):
        _check_side(side)
    if not os.path.isdir(state_folder(checkpoint)):
        raise Fault("no-optimizer", f"{checkpoint.path} has no folder `{FOLDER}`", help="leave --optimizer out")
    state = open_zero_state(state_folder(checkpoint))
    degree = dp or state.dp
    if degree < 1:
        raise Fault("bad-degree", "full optimizer state has no data parallel degree to keep", help="say the one to write for with --dp N")
    buffers = frozenset(t.name for t in family.model.tensors if t.optional)
    held = _source_ranks(compiled, checkpoint, buffers)
    _check_degrees(compiled.source, state, held)
    split = find_split({key: [(p.spelled, p.shape) for p in ranks] for key, ranks in held.items()}, _said(state))
    template = _template(state)
    cut, whole = _kinds(state)
    wanted = order_like(held, _target_ranks(compiled, buffers))
    before, after = max(state.dp, 1), degree
    plans = [
        compile_sides(make(compiled.source, kinds, before, buffers), make(compiled.target, kinds, after, buffers), compare_all=every).plan
        for make, kinds, every in ((cut_state, cut, False), (whole_state, whole, True)) if kinds
    ]  # fmt: skip
    entries = tuple(_entries(state, held, split))
    trees = {
        _file(compiled.target, rank, key): _tree(template, split.groups(ranks))
        for key, ranks in wanted.items() for rank in range(degree)
    }  # fmt: skip
    return WithState(join(compiled.plan, *plans), replace(checkpoint, entries=checkpoint.entries + entries), trees)


def _check_side(side: Side) -> None:
    if side.state is None:
        raise Fault(
            "no-state", f"layout `{side.layout}`, with these settings, cannot hold optimizer state",
            help="leave --optimizer out, or convert between layouts of NxD Training without expert parallelism",
        )  # fmt: skip
    if any(rule.copy or rule.tied for rule in side.rules):
        raise Fault(
            "tied-state", "optimizer state of tied tensors cannot be converted: it is not known which of them has it",
            help="leave --optimizer out",
        )  # fmt: skip
    for rule in side.rules:
        holes = [p.axis for p in rule.rule.names[0].parts if isinstance(p, Hole) and p.axis not in side.ranks]
        if (rule.scale, rule.shift) != (1.0, 0.0) or not rule.rule.dims or not all(axis in side.sizes.values for axis in holes):
            raise Fault("no-state", f"what layout `{side.layout}` stores by the rule at {rule.rule.span.file}:{rule.rule.span.line} cannot have state")


def _ranks_of(plan_side: PlanSide, buffers: frozenset[str], side: Side) -> Iterator[tuple[int, Parameter]]:
    """(number, parameter) of every stored tensor but the buffers. `spelled` is as the first spelling has it."""
    own = {format_of(rule.rule.names[0]) for rule in cut_state(side, {"": ""}, 1, buffers).rules}
    axis = side.stages.axis if side.stages else ""
    for each in families(plan_side.stored):
        stored = each.stored
        if name_of_state("", stored.name) not in own:
            continue
        slots = [i for i, coord in enumerate(stored.coords) if coord not in side.ranks]
        for row, name in enumerate(each.spell(stored.name)):
            at = dict(zip(stored.coords, each.rows[row].tolist(), strict=True))
            layer = at[axis] if axis and "{" + axis in stored.name else None
            key = (0, at.get("tp", 0), at.get("pp", 0))
            more = tuple(each.rows[row].tolist()[i] for i in slots)
            yield each.start + row, Parameter(stored.name, name, name, stored.shape, key, layer, more)


def _source_ranks(compiled: Compiled, checkpoint: Checkpoint, buffers: frozenset[str]) -> Ranks:
    """Every rank's parameters, in the order of its file."""
    side = compiled.plan.source
    entries = match(side, families(side.stored), checkpoint)
    place = {(e.file, e.name): i for i, e in enumerate(checkpoint.entries)}
    found: dict[Any, list[tuple[int, Parameter]]] = {}
    for number, parameter in _ranks_of(side, buffers, compiled.source):
        entry = entries[number]
        if entry is None:
            raise Fault("no-state", f"the source lacks `{parameter.name}`, so what has which state cannot be told")
        found.setdefault(parameter.key, []).append((place[entry.file, entry.name], replace(parameter, spelled=entry.name)))
    return {key: [p for _, p in sorted(ranks, key=lambda pair: pair[0])] for key, ranks in found.items()}


def _target_ranks(compiled: Compiled, buffers: frozenset[str]) -> Ranks:
    found: dict[Any, list[Parameter]] = {}
    for _, parameter in _ranks_of(compiled.plan.target, buffers, compiled.target):
        found.setdefault(parameter.key, []).append(parameter)
    return found


def _check_degrees(side: Side, state: ZeroState, held: Ranks) -> None:
    if state.experts or set(held) != set(state.groups):
        said = ", ".join(f"{name} = {n}" for name, n in zip(("ep", "tp", "pp"), state.degrees, strict=True))
        raise Fault(
            "degree-disagrees", f"the optimizer state is of {said}, the model of {', '.join(f'{k} = {n}' for k, n in side.ranks.items())}",
            help="the checkpoint is mixed from two: copy it again",
        )  # fmt: skip


def _said(state: ZeroState) -> dict[Any, tuple[list[list[Any]], dict[Any, Any]]]:
    """What each group's files say of its parameters: the indices by param_group, and the shapes by index."""
    try:
        return {key: ([list(each["params"]) for each in g.tree["param_groups"]], g.tree["shape_info"]) for key, g in state.groups.items()}
    except (KeyError, TypeError):
        raise Fault("bad-optimizer", "the optimizer state does not list its parameters in `param_groups`") from None


def _rest(tree: Mapping[str, Any]) -> dict[str, Any]:
    """A tree without what is said of single parameters."""
    own = {key: value for key, value in tree.items() if key not in ("base_state", "shape_info", MASTER)}
    groups = [{key: value for key, value in each.items() if key != "params"} for each in tree["param_groups"]]
    return {**own, "param_groups": groups}


def _shape_of_state(tree: Mapping[str, Any], index: Any) -> dict[str, Any]:
    """One parameter's state: its plain values, and True for each tensor."""
    return {key: True if isinstance(value, Leaf) else (value,) for key, value in tree["base_state"][index].items()}


def _template(state: ZeroState) -> Mapping[str, Any]:
    """The first group's tree, after it was found that all groups and all parameters say the same."""
    first: Mapping[str, Any] = next(iter(state.groups.values())).tree
    if first.get("state"):
        raise Fault("bad-optimizer", "the optimizer keeps `state` by index beside `base_state`, which is not known here")
    for key, group in state.groups.items():
        tree = group.tree
        differs = first_difference(_rest(first), _rest(tree))
        every = [tree.get("base_state", {}), *([tree[MASTER]] if MASTER in tree else [])]
        if any(base.keys() != tree["shape_info"].keys() for base in every) or (MASTER in first) != (MASTER in tree):
            raise Fault("bad-optimizer", f"`{file_of(key, 0, False)}` lacks the state of some of its parameters")
        sample = next(iter(first["base_state"]))
        if differs is None:
            uneven = (index for index in tree["base_state"] if _shape_of_state(tree, index) != _shape_of_state(first, sample))
            differs = next((("base_state", index) for index in uneven), None)
        if differs is not None:
            raise Fault(
                "ranks-disagree", f"`{file_of(key, 0, False)}` and other files disagree about `{'.'.join(map(str, differs))}`",
                help="parameters can only move between ranks that say the same of them",
            )  # fmt: skip
    return first


def _kinds(state: ZeroState) -> tuple[dict[str, str], dict[str, str]]:
    """Kinds of state that are cut, and of those that are whole, each with its dtype."""
    cut: dict[str, str] = {}
    whole: dict[str, str] = {}
    for held in (held for group in state.groups.values() for held in group.tensors):
        kind = _kind(held.name)
        if (cut if held.cut else whole).setdefault(kind, held.dtype) != held.dtype:
            raise Fault("mixed-dtypes", f"`{kind}` is {held.dtype} for some parameters and {(cut | whole)[kind]} for others")
        if not held.cut and held.shape:
            raise Fault("wrong-shape", f"`{held.name}` has shape {list(held.shape)}, where one number is known")
    return cut, whole


def _kind(name: str) -> str:
    return MASTER if name.startswith(MASTER) else name.split(".")[2]


def _entries(state: ZeroState, held: Ranks, split: Split) -> Iterator[Entry]:
    """The state's tensors, called by their parameters."""
    names: dict[str, str] = {}
    for key, ranks in held.items():
        order = [p for group in split.groups(ranks) for p in group]
        for each in state.groups[key].tensors:
            names[prefix_of(key) + each.name] = name_of_state(_kind(each.name), order[int(each.name.split(".")[1])].name)
    for entry in state.checkpoint.entries:
        file = entry.file if state.dp else entry.file.replace("full_", "dp_rank_00_")
        yield replace(entry, name=names[entry.name], file=f"{FOLDER}/{file}")


def _file(side: Side, dp: int, key: Any) -> str:
    assert side.state is not None
    return format_of(side.state.file).format(**{side.state.rank: dp, "tp": key[1], "pp": key[2]})


def _tree(template: Mapping[str, Any], groups: list[list[Parameter]]) -> dict[str, Any]:
    """What a rank's file holds for these parameters; all that is not of single ones is the template's."""
    order = [p for group in groups for p in group]
    one, shape = next(iter(template["base_state"].values())), next(iter(template["shape_info"].values()))

    def leaf(kind: str, parameter: Parameter) -> Leaf:
        return Leaf(name_of_state(kind, parameter.name))

    made = {
        "param_groups": [{**each, "params": indices} for each, indices in zip(template["param_groups"], numbered(groups), strict=True)],
        "base_state": {i: {k: leaf(k, p) if isinstance(v, Leaf) else v for k, v in one.items()} for i, p in enumerate(order)},
        "shape_info": {i: type(shape)(p.shape) for i, p in enumerate(order)},
        MASTER: {i: leaf(MASTER, p) for i, p in enumerate(order)},
    }
    return {key: made.get(key, value) for key, value in template.items()}
