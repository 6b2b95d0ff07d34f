"""A family, a layout and its settings in; sizes and live rules out.

Sizes come from a config through the layout that has a `config` block. Each remembers which key gave
it. Guards are settled here: what comes out holds only tensors that exist and rules that apply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..dsl.diagnostic import Diagnostic, Label, MappingError
from ..dsl.nearest import nearest
from ..dsl.tree import (
    Carry,
    Config,
    Expr,
    Files,
    Formats,
    Index,
    Let,
    Literal,
    Param,
    Pattern,
    Ref,
    Refine,
    Require,
    Rule,
    Span,
    Stages,
)
from .link import Family, FlatLayout
from .scope import Scope, evaluate, fault, refs
from .stages import StageList, split_stages

Scalar = int | float | str | bool | None


@dataclass(frozen=True)
class Tensor:
    """A tensor of the model: its axes and their sizes, row-major."""

    name: str
    axes: tuple[str, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """A part of a refined axis: one step of the part is `step` steps of `axis`."""

    axis: str
    extent: int
    step: int


@dataclass(frozen=True)
class Sizes:
    """What the config says of the model: axis sizes, settings, and where each came from."""

    values: Mapping[str, Any]
    origins: Mapping[str, str]
    tensors: Mapping[str, Tensor]
    tied: Mapping[str, str]
    absent: frozenset[str]


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


@dataclass(frozen=True)
class Side:
    """One layout, resolved."""

    family: str
    layout: str
    sizes: Sizes
    ranks: Mapping[str, int]
    params: Mapping[str, Scalar]
    parts: Mapping[str, Part]
    lets: Mapping[str, Index]
    rules: tuple[LiveRule, ...]
    ignored: tuple[Pattern, ...]
    files: Pattern | None
    format: str
    carry: tuple[str, ...]
    stages: StageList | None
    scope: Scope = field(compare=False, repr=False)


def config_of(layout: FlatLayout) -> Config | None:
    return next((x for x in layout.items if isinstance(x, Config)), None)


def bind_sizes(
    family: Family,
    config_layout: FlatLayout | None,
    keys: Mapping[str, Any] | None,
    given: Mapping[str, Scalar],
    stored: Callable[[str], bool],
    key_file: str = "",
) -> Sizes:
    """Evaluate the config block of `config_layout` on `keys`; `given` (from the command line) wins over both."""
    model = family.model
    config = config_of(config_layout) if config_layout else None
    names = {a.name for a in model.axes} | {s.name for s in model.settings}
    scope = Scope(keys=keys or {}, key_file=key_file or (config.file if config else "config"), functions={"stored": stored})
    scope.lazy = {s.name: s.value for s in model.settings}
    for entry in config.entries if config else ():
        if entry.name not in names:
            near = nearest(entry.name, sorted(names))
            raise fault(
                "unknown-name", f"`{model.name}` has no axis or setting `{entry.name}`", entry.span,
                help=f"did you mean `{near}`?" if near else "declare it in the model's `axes` or `settings`",
            )  # fmt: skip
        scope.lazy[entry.name] = entry.value
    for name, value in given.items():
        scope.names[name] = value
        scope.origins[name] = f"--set {name}"
    for require in _requires(model.requires, config_layout):
        _check(require, scope)
    for setting in model.settings:
        scope.lookup(Ref(setting.name, setting.span))
    tensors, tied, absent = _tensors(family, scope, stored)
    scope.functions = {}
    values = {n: scope.names[n] for n in names if n in scope.names}
    return Sizes(values, dict(scope.origins), tensors, tied, absent)


def _requires(of_model: tuple[Require, ...], layout: FlatLayout | None) -> tuple[Require, ...]:
    """The model's own, and those of the config's layout that read the config."""
    reads_keys = tuple(x for x in layout.items if isinstance(x, Require) and _reads_keys(x.test)) if layout else ()
    return of_model + reads_keys


def _reads_keys(expr: Expr) -> bool:
    return "Call(function='key'" in repr(expr)


def _check(require: Require, scope: Scope) -> None:
    if require.when is not None and not evaluate(require.when, scope):
        return
    if not evaluate(require.test, scope):
        used = [r for r in dict.fromkeys(refs(require.test)) if r in scope.names]
        notes = tuple(
            f"{name} = {scope.names[name]}" + (f" comes from {scope.origins[name]}" if scope.origins.get(name) else "")
            for name in used
        )
        raise MappingError(
            Diagnostic("unmet-requirement", require.message, (Label(require.span, "required here"),), notes)
        )


def _tensors(family: Family, scope: Scope, stored: Callable[[str], bool]) -> tuple[dict[str, Tensor], dict[str, str], frozenset[str]]:
    tensors: dict[str, Tensor] = {}
    tied: dict[str, str] = {}
    absent: set[str] = set()
    axes = {a.name for a in family.model.axes}
    declared = {t.name for t in family.model.tensors}
    faults: list[Diagnostic] = []
    for decl in family.model.tensors:
        holds = decl.when is None or bool(evaluate(decl.when, scope))
        if decl.tied_to is not None and holds:
            if decl.tied_to not in declared:
                raise fault("unknown-tensor-name", f"`{decl.name}` is tied to `{decl.tied_to}`, which the model does not have", decl.span)
            tied[decl.name] = decl.tied_to
            continue
        if (decl.tied_to is None and not holds) or (decl.optional and not stored(decl.name)):
            absent.add(decl.name)
            continue
        shape = []
        for axis in decl.axes:
            if axis.name not in axes:
                near = nearest(axis.name, sorted(axes))
                raise fault("unknown-axis", f"the model has no axis `{axis.name}`", axis.span, help=f"did you mean `{near}`?" if near else "declare it in `axes`")
            try:
                size = scope.lookup(Ref(axis.name, axis.span)) if axis.name in scope.names or axis.name in scope.lazy else None
            except MappingError as error:
                faults.extend(error.diagnostics)
                continue
            if not isinstance(size, int) or isinstance(size, bool) or size < 1:
                origin = scope.origins.get(axis.name)
                faults.append(
                    Diagnostic(
                        "unbound-axis",
                        f"axis `{axis.name}` has no size" if size is None else f"axis `{axis.name}` has size {size}, not a positive whole number",
                        (Label(axis.span, f"`{decl.name}` needs it"),),
                        (f"from {origin}",) if origin else (),
                        f"pass a config that gives it with --config, or --set {axis.name}=N",
                    )
                )
                continue
            shape.append(size)
        tensors[decl.name] = Tensor(decl.name, tuple(a.name for a in decl.axes), tuple(shape))
    if faults:
        raise MappingError(*dict.fromkeys(faults))
    return tensors, tied, frozenset(absent)


def resolve(
    family: Family,
    layout_name: str,
    sizes: Sizes,
    given: Mapping[str, Scalar],
    *,
    stages: tuple[tuple[int, ...], ...] | None = None,
    format: str | None = None,
) -> Side:
    """Settle a layout's parameters, guards and stages. `stages` are explicit layer lists per pipeline stage."""
    layout = family.layout(layout_name)
    params = bind_params(layout, given)
    words = frozenset(c for p in layout.params for c in p.choices)
    scope = Scope(dict(sizes.values) | dict(params), words=words, origins=dict(sizes.origins))
    for name in given:
        if name in params:
            scope.origins[name] = f"--set {name}"
    items = layout.items
    for item in items:
        if isinstance(item, Require) and not _reads_keys(item.test):
            _check(item, scope)
    parts = _parts((*family.model.refinements, *(x for x in items if isinstance(x, Refine))), sizes, scope)
    scope.names.update({n: p.extent for n, p in parts.items()})
    lets: dict[str, Index] = {}
    for item in items:
        if isinstance(item, Let) and item.name not in lets and _holds(item.when, scope):
            lets[item.name] = item.value
    files = next((x.pattern for x in items if isinstance(x, Files) and _holds(x.when, scope)), None)
    formats = next((x.names for x in reversed(items) if isinstance(x, Formats)), ("safetensors",))
    if format is not None and format not in formats:
        raise MappingError(
            Diagnostic("unknown-format", f"layout `{layout.name}` does not live in `{format}` files", help=f"--format takes {', '.join(formats)}")
        )
    ranks = {p.name: _rank_size(p, params[p.name]) for p in layout.params if p.rank}
    declared = next((x for x in items if isinstance(x, Stages)), None)
    return Side(
        family.name,
        layout.name,
        sizes,
        ranks,
        {n: v for n, v in params.items() if n not in ranks},
        parts,
        lets,
        tuple(_live_rules(layout, sizes, scope, family)),
        tuple(p for x in layout.ignores if _holds(x.when, scope) for p in x.names),
        files,
        format or formats[0],
        tuple(g for x in items if isinstance(x, Carry) for g in x.globs),
        split_stages(declared, sizes.values, ranks, params, stages, sizes.origins) if declared else None,
        scope,
    )


def bind_params(layout: FlatLayout, given: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Values of all parameters: as given, else their defaults. Parameters may refer to earlier ones."""
    known = {p.name: p for p in layout.params}
    for name in given:
        if name not in known:
            near = nearest(name, list(known))
            raise MappingError(
                Diagnostic(
                    "unknown-parameter",
                    f"layout `{layout.name}` has no parameter `{name}`",
                    notes=(f"it has {', '.join(known) or 'none'}",),
                    help=f"did you mean `{near}`?" if near else "",
                )
            )
    scope = Scope(words=frozenset(c for p in layout.params for c in p.choices))
    for param in layout.params:
        scope.names[param.name] = _typed(param, given[param.name], layout.name) if param.name in given else evaluate(param.default, scope)
    return {p.name: scope.names[p.name] for p in layout.params}


def _typed(param: Param, value: Scalar, layout: str) -> Scalar:
    if param.choices and value not in param.choices:
        near = nearest(str(value), list(param.choices))
        raise MappingError(
            Diagnostic(
                "unknown-choice", f"`{param.name}` of layout `{layout}` is one of {', '.join(param.choices)}, not `{value}`",
                help=f"did you mean `{near}`?" if near else f"use --set {param.name}={param.choices[0]}",
            )
        )  # fmt: skip
    default = param.default.value if isinstance(param.default, Literal) else None
    if default is not None and type(default) is not type(value):
        kind = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}[type(default)]
        raise MappingError(
            Diagnostic("wrong-type", f"`{param.name}` of layout `{layout}` is {kind}, not `{value}`", help=f"use --set {param.name}={str(default).lower()}")
        )
    return value


def _rank_size(param: Param, value: Scalar) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise MappingError(Diagnostic("bad-degree", f"`{param.name}` is {value}, but a parallel degree is a whole number from 1", (Label(param.span),)))
    return value


def _holds(when: Expr | None, scope: Scope) -> bool:
    return when is None or bool(evaluate(when, scope))


def _parts(refinements: tuple[Refine, ...], sizes: Sizes, scope: Scope) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    for refine in refinements:
        if not _holds(refine.when, scope):
            continue
        whole = parts.get(refine.axis)
        if whole is None:
            size = sizes.values.get(refine.axis)
            if size is None:
                continue  # an axis that this model leaves without a size has no parts either
            whole = Part(refine.axis, size, 1)
        extents: dict[str, int] = {}
        for setting in refine.sizes:
            if setting.name not in refine.parts:
                raise fault("unknown-name", f"`{setting.name}` is not a part of `{refine.axis}`", setting.span, help=f"its parts are {', '.join(refine.parts)}")
            extents[setting.name] = evaluate(setting.value, scope)
        open_parts = [p for p in refine.parts if p not in extents]
        known = 1
        for extent in extents.values():
            known *= extent
        if len(open_parts) > 1:
            raise fault("unsized-parts", f"{' and '.join(open_parts)} have no size: at most one part of `{refine.axis}` goes without", refine.span)
        if known < 1 or whole.extent % known or (not open_parts and known != whole.extent):
            origin = sizes.origins.get(refine.axis)
            raise fault(
                "uneven-refinement",
                f"`{refine.axis}` ({whole.extent}) is not made of {' x '.join(f'{n} {e}' for n, e in extents.items())}",
                refine.span,
                notes=tuple(f"{refine.axis} = {whole.extent} comes from {origin}" for _ in (0,) if origin),
                help=_divisors(whole.extent, next(iter(extents), "")),
            )
        step = whole.step * whole.extent
        for name in refine.parts:
            extent = extents.get(name, whole.extent // known)
            step //= extent
            parts[name] = Part(whole.axis, extent, step)
    return parts


def _divisors(n: int, name: str) -> str:
    return f"`{name}` may be {', '.join(str(d) for d in range(1, min(n, 512) + 1) if n % d == 0)}" if name else ""


def _live_rules(layout: FlatLayout, sizes: Sizes, scope: Scope, family: Family) -> list[LiveRule]:
    declared = {t.name for t in family.model.tensors}
    live = []
    for flat in layout.rules:
        rule = flat.rule
        if not _holds(rule.when, scope):
            continue
        renames = {r.label: r.tensor for r in rule.renames}
        used = [*([rule.tensor] if rule.tensor else []), *renames.values()]
        for name in used:
            if name not in declared:
                near = nearest(name, sorted(declared))
                raise fault("unknown-tensor-name", f"model `{family.name}` has no tensor `{name}`", rule.span, help=f"did you mean `{near}`?" if near else "")
        scale, shift = 1.0, 0.0
        for e in rule.elementwise:
            amount = float(evaluate(e.amount, scope))
            if e.op == "*":
                if amount == 0:
                    raise fault("zero-scale", "a scale of 0 cannot be undone", e.span)
                scale, shift = scale * amount, shift * amount
            else:
                shift += amount if e.op == "+" else -amount
        tensor = rule.tensor
        tied = tensor is not None and tensor in sizes.tied
        if tensor is not None and tensor in sizes.absent:
            continue
        live.append(
            LiveRule(rule, sizes.tied.get(tensor, tensor) if tensor else None, renames, flat.block, scale, shift, rule.copy or tied, tied)
        )
    return live
