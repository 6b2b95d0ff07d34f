"""Families in, the faults that they have under any sizes out: names of nothing, places that are missing.

Nothing is evaluated. What depends on sizes (does it divide, does it tile) is found when a plan is compiled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ...dsl.diagnostic import Diagnostic, Label, MappingError
from ...dsl.tree import (
    Bind,
    Config,
    Expr,
    Fixed,
    Hole,
    Index,
    Only,
    Pattern,
    Refine,
    Require,
    Rule,
    Span,
    Stages,
    State,
    TensorDecl,
)
from ..identify.match import tensors_of
from ..link.flat import Family, FlatLayout
from ..values.lets import labels, mentions
from ..values.pick import axes_of, empty, foreign_indices, pick
from ..values.scope import WRITTEN, Scope
from ..values.settled import settled
from ..values.walk_expr import reads_keys
from .check_files import check_files, check_formats
from .check_names import (
    OF_TENSORS,
    Names,
    about_indices,
    check_expr,
    check_hole,
    check_index,
    check_made,
    check_where,
    unknown,
)

MOST_LAYERS = 128


def check(families: Sequence[Family]) -> tuple[Diagnostic, ...]:
    """Every fault and warning of these models and of the layouts that are written for them, each once."""
    found: list[Diagnostic] = []
    used: set[Span] = set()
    for family in families:
        found += _model(family)
        for layout in (*family.layouts, *family.bases):
            used |= _used_lets(layout)
            if layout.name in family.own:
                found += _layout(family, layout)
                found += _stored(family, layout, Names.of_layout(family.model, layout)) if layout in family.layouts else ()
    for family in families:
        for layout in family.layouts:
            found += _unused_lets(layout, used)
    return tuple(dict.fromkeys(found))


def _model(family: Family) -> Iterator[Diagnostic]:
    model = family.model
    of_model = Names.of_model(model)
    names = replace(of_model, parts_of={})  # parts of axes have no size yet where a model is settled
    for setting in model.settings:
        yield from check_expr(setting.value, names)
        yield from check_expr(setting.when, names) if setting.when is not None else ()
    yield from _refinements(model.refinements, of_model)
    for require in model.requires:
        yield from _require(require, names)
    for tensor in model.tensors:
        for axis in tensor.axes:
            if axis.name not in names.axes:
                yield unknown("undeclared-axis", f"the model has no axis `{axis.name}`", axis.name, names.axes, axis.span, "declare it in `axes`")
        if tensor.tied_to is not None and tensor.tied_to not in names.tensors:
            title = f"`{tensor.name}` is tied to `{tensor.tied_to}`, which the model does not have"
            yield unknown("unknown-tied", title, tensor.tied_to, names.tensors, tensor.span, "tie it to a tensor of this model")
        for word, axis_name in (("before", tensor.before), ("after", tensor.after)):
            if axis_name is not None and axis_name not in names.axes:
                title = f"`{tensor.name}` stands {word} `{axis_name}`, which is no axis of the model"
                yield unknown("undeclared-axis", title, axis_name, names.axes, tensor.span, "name the axis that pipeline stages divide")
        if tensor.when is not None:
            yield from check_expr(tensor.when, names)
        yield from check_where(tensor.where, names, tensor.span)
        yield from foreign_indices(tensor, names.selects)
    for select in names.selects.values():
        if select.axis not in names.axes:
            yield unknown("undeclared-axis", f"the model has no axis `{select.axis}`", select.axis, names.axes, select.span, "declare it in `axes`")
        yield from check_expr(select.value, about_indices(names))


def _guard(when: Expr | None, names: Names) -> Iterator[Diagnostic]:
    if when is not None:
        yield from check_expr(when, names)


def _require(require: Require, names: Names) -> Iterator[Diagnostic]:
    yield from check_expr(require.test, names)
    if require.when is not None:
        yield from check_expr(require.when, names)


def _refinements(refinements: Iterable[Refine], names: Names) -> Iterator[Diagnostic]:
    for refine in refinements:
        if refine.axis not in names.axes | names.parts | names.ranks:
            title = f"`{refine.axis}` is not an axis that can be refined"
            yield unknown("unknown-refined", title, refine.axis, names.axes | names.parts | names.ranks, refine.span, "name an axis of the model, or a rank of the layout")
        for setting in refine.sizes:
            if setting.name not in refine.parts:
                title, help = f"`{setting.name}` is not a part of `{refine.axis}`", f"its parts are {', '.join(refine.parts)}"
                yield unknown("unknown-part", title, setting.name, refine.parts, setting.span, help)
            yield from check_expr(setting.value, names)
        if refine.when is not None:
            yield from check_expr(refine.when, names)


def _layout(family: Family, layout: FlatLayout) -> Iterator[Diagnostic]:
    model_names, names = Names.of_model(family.model), Names.of_layout(family.model, layout)
    asking = replace(names, words=names.words | {WRITTEN})
    yield from _params(layout, model_names)
    for require in layout.requires:
        yield from _require(require, replace(model_names, keys=True) if reads_keys(require.test) else asking)
    for note in layout.notes:
        yield from _guard(note.when, asking)
    yield from _refinements(layout.refinements, names)
    for let in layout.lets:
        yield from check_index(let.value, names)
        yield from _guard(let.when, names)
    for files in layout.files:
        yield from _guard(files.when, names)
        for part in (part for name in files.names if isinstance(name, Pattern) for part in name.parts):
            if isinstance(part, Hole):
                yield from check_hole(part, names)
    for omit in layout.omits:
        yield from _guard(omit.when, names)
        for tensor in omit.tensors:
            if tensor not in names.tensors:
                title = f"the model has no tensor `{tensor}` that could be left out"
                yield unknown("unknown-tensor-name", title, tensor, names.tensors | {part.name for part in family.model.parts}, omit.span, "remove it")
    for text in layout.texts:
        yield from _guard(text.when, names)
    if layout.stages is not None:
        yield from _stages(layout.stages, names)
    if layout.state is not None:
        yield from _state(layout.state, names)
    if layout.config is not None:
        yield from _config(layout.config, family, names)
    for flat in layout.rules:
        yield from _rule(flat.rule, family, layout, names)
    for ignore in layout.ignores:
        for part in (part for name in ignore.names for part in name.parts):
            if isinstance(part, Hole):
                yield from check_hole(part, names)
        yield from check_expr(ignore.when, names) if ignore.when is not None else ()
        yield from check_where(ignore.where, names, ignore.span)
    yield from check_files(layout)
    yield from check_formats(layout)


def _params(layout: FlatLayout, of_model: Names) -> Iterator[Diagnostic]:
    """A default may name the model's axes and settings, choices, and the parameters before it."""
    later = {param.name for param in layout.params}
    known = Names(of_model.axes - later, of_model.settings - later, words=layout.words)
    for param in layout.params:
        yield from check_expr(param.default, known)
        known = replace(known, words=known.words | {param.name})


def _stages(item: Stages, names: Names) -> Iterator[Diagnostic]:
    if item.axis not in names.axes:
        title = f"stages divide `{item.axis}`, which is not an axis of the model"
        yield unknown("stages-axis", title, item.axis, names.axes, item.span, "name an axis of the model")
    if item.rank not in names.ranks:
        title = f"stages are divided over `{item.rank}`, which is not a rank of this layout"
        yield unknown("stages-rank", title, item.rank, names.ranks, item.span, f"declare it: `rank {item.rank} = 1`")
    if item.interleave is not None and item.interleave not in names.params:
        title = f"stages are interleaved by `{item.interleave}`, which is not a parameter of this layout"
        yield unknown("stages-interleave", title, item.interleave, names.params, item.span, f"declare it: `{item.interleave} = 1`")
    if item.beyond is not None and item.beyond not in names.values:
        title = f"`{item.beyond}` is to count indices at the end, and is not an axis or a setting"
        yield unknown("stages-beyond", title, item.beyond, names.values, item.span, "declare it in the model")


def _state(item: State, names: Names) -> Iterator[Diagnostic]:
    if item.rank in names.params:
        title = f"`{item.rank}` is a parameter of this layout already"
        yield Diagnostic("state-rank", title, (Label(item.span),), help="state is cut over a rank of its own, such as dp")
    yield from check_expr(item.when, names) if item.when is not None else ()
    for part in item.file.parts:
        if isinstance(part, Hole):
            yield from check_hole(part, replace(names, ranks=names.ranks | {item.rank}))


def _config(item: Config, family: Family, names: Names) -> Iterator[Diagnostic]:
    known = names.axes | names.settings | names.params
    names = replace(names, keys=True, functions=names.functions | OF_TENSORS)
    for entry in item.items:
        match entry:
            case Bind(name, value):
                if name not in known:
                    title = f"`{family.model.name}` has no axis or setting `{name}`, nor the layout a parameter"
                    yield unknown("unknown-entry", title, name, known, entry.span, "declare it in the model's `axes` or `settings`")
                yield from check_expr(value, names) if value is not None else ()
            case Fixed(_, fixed, when):
                for value in fixed if isinstance(fixed, tuple) else (fixed,):
                    yield from check_expr(value, names)
                yield from check_expr(when, names) if when is not None else ()
            case Only(value, _, _, when):
                yield from check_expr(value, names)
                yield from check_expr(when, names) if when is not None else ()


def _rule(rule: Rule, family: Family, layout: FlatLayout, names: Names) -> Iterator[Diagnostic]:
    for name in rule.names:
        for part in name.parts:
            if isinstance(part, Hole):
                yield from check_hole(part, names)
    for dim in rule.dims:
        yield from check_index(dim, names)
    for dim in rule.view:
        yield from check_index(dim, names)
    for e in rule.elementwise:
        yield from check_expr(e.amount, names)
    if rule.when is not None:
        yield from check_expr(rule.when, names)
    yield from check_where(rule.where, names, rule.span)
    if rule.made is not None:
        yield from check_made(rule.made)
        for arg in rule.made.args:
            yield from check_expr(arg, names)
    stages = layout.stages
    if rule.on is not None and (stages is None or (rule.on == "beyond" and stages.beyond is None)):
        title = f"`on {rule.on}` means nothing here: the layout has no stages" if stages is None else "`on beyond` means nothing here: the stages divide all indices"
        yield Diagnostic("misplaced-on", title, (Label(rule.span),), help=f"remove `on {rule.on}`")
    written = labels(rule.dims, layout.lets)
    renames = {r.label: r for r in rule.renames}
    for rename in rule.renames:
        if rename.label not in written:
            yield unknown("unknown-label", f"nothing in this rule is labelled `{rename.label}`", rename.label, written, rename.span, "remove it")
    wanted = [(rule.tensor, rule.span)] if rule.tensor is not None else []
    wanted += [(r.tensor, r.span) for r in rule.renames]
    wanted += [(label, span) for label, span in written.items() if label not in renames]
    for tensor, span in wanted:
        if tensor not in names.tensors:
            title = f"model `{family.name}` has no tensor `{tensor}`"
            yield unknown("unknown-tensor-name", title, tensor, names.tensors, span, "declare it in the model")


# --- what has no place ----------------------------------------------------------------------------


def _stored(family: Family, layout: FlatLayout, names: Names) -> Iterator[Diagnostic]:
    """Tensors that no rule stores, and axes of tensors that none of their rules mentions."""
    mentioned: dict[str, set[str]] = {}
    for flat in layout.rules:
        axes = _axes(flat.rule, layout, names)
        for tensor in tensors_of(flat.rule, layout):
            mentioned.setdefault(tensor, set()).update(axes)
    for decl in family.model.tensors:
        if decl.name not in mentioned:
            if not _may_lack(decl, family, layout):
                yield _no_rule(decl, layout)
            continue
        for axis in decl.axes:
            if axis.name in names.axes and axis.name not in mentioned[decl.name]:
                place = next(f.rule.span for f in layout.rules if decl.name in tensors_of(f.rule, layout))
                yield Diagnostic(
                    "axis-not-stored", f"no rule of layout `{layout.name}` says where the axis `{axis.name}` of `{decl.name}` is stored",
                    (Label(place),), (f"{decl.name} [{', '.join(a.name for a in decl.axes)}]",),
                    f"put `{axis.name}` in the shape, or spell it in the name as {{{axis.name}}}",
                )  # fmt: skip


def _may_lack(tensor: TensorDecl, family: Family, layout: FlatLayout) -> bool:
    """Whether a layout need say nothing of it: its own config does not ask for it, only a checkpoint that has it."""
    if tensor.optional or any(tensor.name in omit.tensors for omit in layout.omits):
        return True
    block = layout.config
    bound = {entry.name for entry in block.entries} if block else set()
    lazy = {s.name: s.value for s in family.model.settings if s.name not in bound}
    if tensor.where is not None and _nowhere(tensor.where, family, lazy):
        return True
    if tensor.when is None or tensor.tied_to is not None:
        return False
    return settled(tensor.when, Scope(lazy=lazy, functions={"stored": lambda name: False, "lacks": lambda name: False})) is False


def _nowhere(where: Expr, family: Family, lazy: dict[str, Expr]) -> bool:
    """Whether it holds for no index, by what the model says itself. As many as layers may be are tried."""
    selects = {s.name: s for s in family.model.selects}
    try:
        return empty(pick(where, dict.fromkeys(axes_of(where, selects), MOST_LAYERS), selects, Scope(lazy=dict(lazy), functions={"stored": lambda name: False, "lacks": lambda name: False}), where.span))
    except MappingError:
        return False


def _no_rule(tensor: TensorDecl, layout: FlatLayout) -> Diagnostic:
    """A warning if the tensor need not exist: then layouts may differ in what they can hold."""
    always = tensor.when is None and tensor.where is None and not tensor.optional and tensor.tied_to is None
    return Diagnostic(
        "no-rule", f"layout `{layout.name}` has no rule for `{tensor.name}`", (Label(layout.span), Label(tensor.span, "declared here")),
        help=f"add a rule that stores `{tensor.name}`", severity="error" if always else "warning",
    )  # fmt: skip


def _axes(rule: Rule, layout: FlatLayout, names: Names) -> set[str]:
    """The axes that a rule's name and shape mention, lets and parts followed."""
    lets: dict[str, list[Index]] = {}
    for item in layout.lets:
        lets.setdefault(item.name, []).append(item.value)
    found = {p.axis for name in rule.names for p in name.parts if isinstance(p, Hole)}
    todo = [ref.name for dim in rule.dims for ref in mentions(dim)]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += [ref.name for value in lets.get(name, ()) for ref in mentions(value)]
    return {names.whole(name) for name in found}


def _used_lets(layout: FlatLayout) -> set[Span]:
    lets = layout.lets
    todo = [ref.name for flat in layout.rules for dim in flat.rule.dims for ref in mentions(dim)]
    used: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in used:
            used.add(name)
            todo += [ref.name for x in lets if x.name == name for ref in mentions(x.value)]
    return {x.span for x in lets if x.name in used}


def _unused_lets(layout: FlatLayout, used: set[Span]) -> Iterator[Diagnostic]:
    for item in {let.name: let for let in reversed(layout.lets)}.values():
        if item.span not in used:
            yield Diagnostic("unused-let", f"`let {item.name}` is never used", (Label(item.span),), help="remove it", severity="warning")
