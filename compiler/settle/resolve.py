"""A family's sizes, a layout and its parameters in; the layout's live rules out, every guard settled."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ...dsl.diagnostic import Diagnostic, MappingError, fault
from ...dsl.nearest import did_you_mean
from ...dsl.tree import (
    NOWHERE,
    Expr,
    Index,
    Literal,
    Param,
    Pattern,
    Ref,
    Rule,
    Span,
    State,
)
from ...runtime.formats.registry import format_named
from ..check.check_files import check_files, check_formats, formats_of, no_files
from ..check.check_names import check_made
from ..identify.match import tensors_of
from ..link.flat import Family, FlatLayout
from ..values.lets import check_lets
from ..values.pick import Picked, both, empty, pick
from ..values.scope import WRITTEN, Scope, evaluate, holds, number_of, shown, whole_value
from ..values.stages import MOST, Given, StageList, split_stages
from ..values.walk_expr import reads_keys
from .rank_digits import Digits, plain, rank_digits
from .refine import Part, refined_parts
from .sizes import Scalar, Sizes, Tensor, check_requirement


@dataclass(frozen=True)
class LiveRule:
    """A rule that applies. stored = model * scale + shift. `tied`: an alias that only reading looks at."""

    rule: Rule
    tensor: str | None
    renames: Mapping[str, str]
    block: int
    scale: float = 1.0
    shift: float = 0.0
    copy: bool = False
    tied: bool = False
    picked: Picked = ()  # the indices of one axis that it is for, if not for all


@dataclass(frozen=True)
class MadeTensor:
    """A tensor whose elements are `function(*args)`."""

    tensor: Tensor
    function: str
    args: tuple[float, ...]
    span: Span


@dataclass(frozen=True)
class Side:
    """One layout, resolved."""

    family: str
    layout: str
    sizes: Sizes
    ranks: Mapping[str, int]
    shared: frozenset[str]  # ranks that may leave out what they do not slice, but for rank 0
    params: Mapping[str, Scalar]
    parts: Mapping[str, Part]
    lets: Mapping[str, Index]
    rules: tuple[LiveRule, ...]
    ignored: tuple[Pattern, ...]
    objects: tuple[tuple[Pattern, Picked], ...]  # of `ignored`, what formats that keep empty objects are given
    files: tuple[Pattern, ...]  # the first is written, any is read
    format: str
    carry: tuple[str, ...]
    stages: StageList | None
    rank_parts: Mapping[str, Digits]  # the digits of ranks that are refined, and of each part
    scope: Scope = field(compare=False, repr=False)
    span: Span = NOWHERE
    changed: tuple[str, ...] = ()  # parameters that are not at their defaults
    texts: tuple[tuple[str, str], ...] = ()  # small files with fixed content
    omitted: tuple[str, ...] = ()  # tensors of the model that the layout leaves out on purpose
    made: tuple[MadeTensor, ...] = ()  # tensors that the source lacks, and how they are calculated
    state: State | None = None  # where an optimizer's state is
    read_only: bool = False
    buffers: frozenset[str] = frozenset()  # tensors that are no weights: those that the model calls optional, or rules make
    notes: tuple[str, ...] = ()  # what there is to say where it is written

    @property
    def calculated(self) -> frozenset[str]:
        """The tensors that this layout stores and that a rule of it knows how to calculate."""
        return frozenset(x.tensor for x in self.rules if x.rule.made is not None and x.tensor is not None)

    def digits(self, rank: str) -> Digits:
        """What the number of a rank is made of, or a part of it. Nothing for what is neither."""
        return self.rank_parts.get(rank) or (plain(rank, self.ranks[rank]) if rank in self.ranks else ())

    @property
    def turns(self) -> dict[str, int]:
        """The parameter in whose turns stages are dealt out, which names may spell, and how many there are."""
        stages = self.stages
        return {stages.interleave: stages.turns} if stages is not None and stages.interleave is not None else {}


def resolve(
    family: Family,
    layout_name: str,
    sizes: Sizes,
    given: Mapping[str, Scalar],
    *,
    stages: Given | None = None,
    format: str | None = None,
    makes: bool = False,
    calculated: frozenset[str] = frozenset(),
    required: bool = True,
    written: bool = False,
) -> Side:
    """Settle a layout's parameters, guards and stages. `stages` are explicit lists of layers per pipeline stage, or per stage and turn.

    `makes`: the side is the target of another layout, and makes what the source lacks where rules say how. Within a
    layout nothing is made: what a source leaves out stays out. `calculated`: what another layout's source stores though it
    can be calculated; a target that need not have it, and would not make it, leaves it out. Without `required`, what the
    layout requires is not asked. `written`: the side is a target that is not just as its source is (see `differs`), so that
    some module must be able to read it.
    """
    layout = family.layout(layout_name)
    if wrong := (*check_files(layout), *check_formats(layout)):
        raise MappingError(*wrong)
    params = bind_params(layout, given, sizes.values)
    words = layout.words
    scope = Scope(dict(sizes.values) | dict(params), words=words, origins=dict(sizes.origins))
    for name in given:
        if name in params:
            scope.origins[name] = f"--set {name}"
    omitted = tuple(
        t for x in layout.omits if holds(x.when, scope) for t in x.tensors if t in sizes.tensors
    )
    optional = frozenset(t.name for t in family.model.tensors if t.optional)
    makers = {x.rule.tensor for x in layout.rules if x.rule.made is not None and holds(x.rule.when, scope)}
    spoken_of = {t for x in layout.rules for t in tensors_of(x.rule, layout)} if calculated else set()
    omitted += tuple(t for t in sizes.tensors if t in (calculated & optional & spoken_of) - makers and t not in omitted)
    made = tuple(_made(layout, sizes, scope, family)) if makes else ()
    kept = {n: t for n, t in sizes.tensors.items() if n not in omitted} | {m.tensor.name: m.tensor for m in made}
    sizes = replace(sizes, tensors=kept, absent=(sizes.absent | {*omitted}) - {m.tensor.name for m in made})
    asking = replace(scope, names={WRITTEN: written} | scope.names)
    for item in layout.requires:
        if required and not reads_keys(item.test):
            check_requirement(item, asking)
    ranks = {p.name: _rank_size(p, params[p.name]) for p in layout.params if p.rank}
    refinements = (*family.model.refinements, *layout.refinements)
    parts = refined_parts(tuple(x for x in refinements if x.axis not in ranks), sizes, scope)
    scope.names.update({n: p.extent for n, p in parts.items()})
    rank_parts = rank_digits(refinements, ranks, scope)
    lets: dict[str, Index] = {}
    for let in layout.lets:
        if let.name not in lets and holds(let.when, scope):
            lets[let.name] = let.value
    check_lets(lets)
    files = next((x.names for x in layout.files if holds(x.when, scope)), ())
    containers = formats_of(layout)
    formats = containers.names
    if format is not None and format not in formats:
        raise MappingError(
            Diagnostic("unknown-format", f"layout `{layout.name}` does not live in `{format}` files", help=f"--format takes {', '.join(formats)}")
        )
    if not files and not format_named(format or formats[0]).names_files:
        raise MappingError(no_files(layout, format or formats[0], containers.span))
    return Side(
        family.name,
        layout.name,
        sizes,
        ranks,
        frozenset(p.name for p in layout.params if p.shared),
        {n: v for n, v in params.items() if n not in ranks},
        parts,
        lets,
        tuple(_live_rules(layout, sizes, scope, family)),
        tuple(p for x in layout.ignores if holds(x.when, scope) for p in x.names),
        tuple(_objects(layout, family, sizes, scope)),
        tuple(name for name in files if isinstance(name, Pattern)),
        format or formats[0],
        tuple(g for x in layout.carry for g in x.globs),
        split_stages(layout.stages, sizes.values, ranks, params, stages, sizes.origins) if layout.stages else None,
        rank_parts,
        scope,
        layout.span,
        tuple(p.name for p in layout.params if bind_params(layout, {n: v for n, v in params.items() if n != p.name}, sizes.values)[p.name] != params[p.name]),
        tuple((x.file, x.content) for x in layout.texts if holds(x.when, scope)),
        omitted,
        made,
        layout.state if layout.state is not None and holds(layout.state.when, scope) else None,
        containers.read_only,
        optional | {x.rule.tensor for x in layout.rules if x.rule.made is not None and x.rule.tensor is not None},
        tuple(x.text for x in layout.notes if written and holds(x.when, asking)),
    )


def differs(layout: FlatLayout, given: Mapping[str, Scalar], source: Side) -> bool:
    """Whether a target is another than the source: of another layout, or with other degrees or parameters."""
    return layout.name != source.layout or bind_params(layout, given, source.sizes.values) != {**source.ranks, **source.params}


def bind_params(layout: FlatLayout, given: Mapping[str, Scalar], of_model: Mapping[str, Any]) -> dict[str, Scalar]:
    """Values of all parameters: as given, else their defaults, which may follow from the model's axes and settings
    (`of_model`) and from parameters before."""
    known = {p.name: p for p in layout.params}
    for name in given:
        if name not in known:
            raise MappingError(
                Diagnostic(
                    "unknown-parameter",
                    f"layout `{layout.name}` has no parameter `{name}`",
                    notes=(f"it has {', '.join(known) or 'none'}",),
                    help=did_you_mean(name, known),
                )
            )
    scope = Scope({name: value for name, value in of_model.items() if name not in known}, words=layout.words)
    for param in layout.params:
        scope.names[param.name] = _typed(param, given[param.name], layout) if param.name in given else _default(param, scope)
    return {p.name: scope.names[p.name] for p in layout.params}


def _default(param: Param, scope: Scope) -> Scalar:
    value: Scalar = evaluate(param.default, scope)
    if param.choices and value not in param.choices:
        raise fault(
            "bad-default", f"the default of `{param.name}` comes out as {shown(value)}, which is none of its choices", param.default.span,
            help=f"it may be {', '.join(param.choices)}",
        )  # fmt: skip
    return value


def _typed(param: Param, value: Scalar, layout: FlatLayout) -> Scalar:
    word = param.default.name if isinstance(param.default, Ref) and param.default.name in layout.words else None
    choices = param.choices or ((word,) if word is not None else ())
    if choices and value not in choices:
        only = f"one of {', '.join(choices)}" if len(choices) > 1 else f"always {choices[0]}"
        raise MappingError(
            Diagnostic(
                "unknown-choice", f"`{param.name}` of layout `{layout.name}` is {only}, not `{value}`",
                help=did_you_mean(str(value), choices, f"use --set {param.name}={choices[0]}"),
            )
        )  # fmt: skip
    default = param.default.value if isinstance(param.default, Literal) else None
    if isinstance(default, float) and type(value) is int:
        return value
    if default is not None and type(default) is not type(value):
        kind = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}[type(default)]
        raise MappingError(
            Diagnostic("wrong-type", f"`{param.name}` of layout `{layout.name}` is {kind}, not `{value}`", help=f"use --set {param.name}={str(default).lower()}")
        )
    return value


def _rank_size(param: Param, value: Scalar) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MOST:
        title = f"`{param.name}` is {shown(value)}, but a parallel degree is a whole number from 1 to {MOST}"
        raise fault("bad-degree", title, param.span, "declared as a rank here", help=f"use --set {param.name}=1")
    return value


def unknown_tensor(name: str, model: str, declared: Iterable[str], span: Span) -> MappingError:
    help = did_you_mean(name, sorted(declared), "declare it in the model")
    return fault("unknown-tensor-name", f"model `{model}` has no tensor `{name}`", span, help=help)


def _made(layout: FlatLayout, sizes: Sizes, scope: Scope, family: Family) -> Iterator[MadeTensor]:
    """The absent tensors that live rules know how to make."""
    declared = {t.name: t for t in family.model.tensors}
    for rule in (flat.rule for flat in layout.rules):
        name, call = rule.tensor, rule.made
        if call is None or name is None or name not in sizes.absent or not holds(rule.when, scope):
            continue
        if wrong := tuple(check_made(call)):
            raise MappingError(*wrong)
        axes = tuple(axis.name for axis in declared[name].axes)
        shape = tuple(whole_value(sizes.values.get(axis), f"axis `{axis}`", call.span) for axis in axes)
        yield MadeTensor(Tensor(name, axes, shape), call.function, tuple(number_of(a, scope) for a in call.args), rule.span)


def _live_rules(layout: FlatLayout, sizes: Sizes, scope: Scope, family: Family) -> list[LiveRule]:
    declared = {t.name for t in family.model.tensors}
    live: list[LiveRule] = []
    for flat in layout.rules:
        rule = flat.rule
        if not holds(rule.when, scope):
            continue
        renames = {r.label: r.tensor for r in rule.renames}
        used = [*([rule.tensor] if rule.tensor else []), *renames.values()]
        for name in used:
            if name not in declared:
                span = next((r.span for r in rule.renames if r.tensor == name), rule.span)
                raise unknown_tensor(name, family.name, declared, span)
        scale, shift = 1.0, 0.0
        for e in rule.elementwise:
            amount = evaluate(e.amount, scope)
            if not isinstance(amount, (int, float)) or isinstance(amount, bool) or not math.isfinite(amount):
                raise fault("bad-amount", f"{shown(amount)} is not a number to calculate elements with", e.span, "a finite number is needed here")
            if e.op == "*":
                if amount == 0:
                    raise fault("zero-scale", "a scale of 0 cannot be undone", e.span, help="scale by another number, or `ignore` the stored tensor")
                scale, shift = scale * amount, shift * amount
            else:
                shift += amount if e.op == "+" else -amount
        tensor = rule.tensor
        tied = tensor is not None and tensor in sizes.tied
        named = tensors_of(rule, layout)
        if named and named <= sizes.absent:
            continue
        picked = _picked(rule, named, sizes, scope, family)
        if empty(picked):
            continue
        live.append(
            LiveRule(
                rule, sizes.tied.get(tensor, tensor) if tensor else None, renames, flat.block, scale, shift, rule.copy or tied, tied, picked
            )
        )  # fmt: skip
    return live


def _picked(rule: Rule, named: set[str], sizes: Sizes, scope: Scope, family: Family) -> Picked:
    """The indices that the rule is for, and at which its tensors exist."""
    own = _pick(rule.where, sizes, scope, family, rule.span)
    kinds = {sizes.tensors[name].picked for name in (sizes.tied.get(n, n) for n in named) if name in sizes.tensors}
    shared = set[Picked]() if not kinds else {both(own, kind, rule.span) for kind in kinds}
    if len(shared) > 1:
        raise fault(
            "where-differs", "the tensors that are stored together here do not exist at the same indices", rule.span,
            help="store those apart that do not go together, or give them the same condition",
        )  # fmt: skip
    return shared.pop() if shared else own


def _pick(where: Expr | None, sizes: Sizes, scope: Scope, family: Family, span: Span) -> Picked:
    if where is None:
        return ()
    return pick(where, sizes.values, {s.name: s for s in family.model.selects}, scope, span)


def _objects(layout: FlatLayout, family: Family, sizes: Sizes, scope: Scope) -> Iterator[tuple[Pattern, Picked]]:
    for item in layout.ignores:
        if holds(item.when, scope):
            picked = _pick(item.where, sizes, scope, family, item.span)
            if item.empty and not empty(picked):
                yield item.names[0], picked
