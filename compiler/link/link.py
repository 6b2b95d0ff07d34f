"""Parsed files in, families out: `extends` followed, prefixes and guards of `under` written into each rule.

A family is a model with every layout that is written for it or for a model it extends.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar

from ...dsl.diagnostic import Diagnostic, Label, MappingError
from ...dsl.nearest import nearest
from ...dsl.tree import (
    Base,
    Binary,
    Config,
    Expr,
    Files,
    Formats,
    Hole,
    Ignore,
    Layout,
    LayoutItem,
    Let,
    Mapping,
    Model,
    Param,
    Pattern,
    Refine,
    Require,
    Rule,
    Span,
    Stages,
    State,
    Unary,
    Under,
)
from .merge_config import keys_under, merged

Named = TypeVar("Named")


@dataclass(frozen=True)
class FlatRule:
    """A rule with its full names and its whole guard; rules of one `under` share a `block`."""

    rule: Rule
    block: int


@dataclass(frozen=True)
class FlatLayout:
    name: str
    params: tuple[Param, ...]
    rules: tuple[FlatRule, ...]
    ignores: tuple[Ignore, ...]
    items: tuple[LayoutItem, ...]  # all that is neither a rule, an ignore nor an under
    span: Span
    words: frozenset[str]  # choices, also those of parameters that are replaced: they stand for themselves


@dataclass(frozen=True)
class Family:
    """A model, merged with what it extends, and its layouts, merged likewise."""

    name: str
    model: Model
    layouts: tuple[FlatLayout, ...]
    own: frozenset[str]  # the layouts that are written for this very model
    ancestors: tuple[str, ...] = ()  # the models that it extends

    def layout(self, name: str) -> FlatLayout:
        for layout in self.layouts:
            if layout.name == name:
                return layout
        names = [x.name for x in self.layouts]
        near = nearest(name, names)
        raise MappingError(
            Diagnostic(
                "unknown-layout",
                f"`{self.name}` has no layout `{name}`",
                notes=(f"its layouts are {', '.join(sorted(names))}",),
                help=f"did you mean `{near}`?" if near else "",
            )
        )


def link(mappings: Sequence[Mapping]) -> tuple[Family, ...]:
    """All families of the files given, which together must hold everything that they name."""
    models = _unique([m for f in mappings for m in f.models], "model")
    layouts = [x for f in mappings for x in f.layouts]
    families = []
    flattened: dict[tuple[object, ...], FlatLayout] = {}  # most families share most layouts

    def flat_of(chain: list[Prefixed]) -> FlatLayout:
        key = tuple((id(layout), starts, keys) for layout, starts, keys in chain)
        if key not in flattened:
            flattened[key] = _flatten(chain)
        return flattened[key]

    for model in models.values():
        chain = _chain(model, models)
        known: dict[str, Layout] = {}
        inherited: dict[Span, Layout] = {}  # what a layout replaces, by the place of that layout
        for m in chain:  # a layout of the model itself stands in the place of an inherited one of its name
            own = _unique([x for x in layouts if x.model == m.name], "layout")
            inherited |= {x.span: known[name] for name, x in own.items() if name in known}
            known |= own
        bases = {b.name for x in layouts if x.model in {m.name for m in chain} for b in x.extends if b.name != x.name}
        flat = tuple(flat_of(_layout_chain(x, known, inherited)) for x in known.values())
        taken_away = {x.name for x in known.values() if x.span in inherited and not x.items and not x.extends}
        # What others extend may have no rules itself.
        bases_only = taken_away | {x.name for x in known.values() if x.base}
        flat = tuple(x for x in flat if x.name not in bases_only and (x.rules or x.name not in bases))
        mine = frozenset(x.name for x in known.values() if x.model == model.name)
        families.append(Family(model.name, _merge(chain), flat, mine, tuple(m.name for m in chain[:-1])))
    for layout in layouts:
        if layout.model not in models:
            near = nearest(layout.model, list(models))
            raise _fault("unknown-model", f"there is no model `{layout.model}`", layout.span, f"did you mean `{near}`?" if near else "")
    return tuple(families)


def _fault(code: str, title: str, span: Span, help: str = "", *more: Label) -> MappingError:
    return MappingError(Diagnostic(code, title, (Label(span), *more), help=help))


def _unique(items: Iterable[Named], kind: str) -> dict[str, Named]:
    found: dict[str, Named] = {}
    for item in items:
        name = item.name  # type: ignore[attr-defined]
        if name in found:
            first = Label(found[name].span, "first declared here")  # type: ignore[attr-defined]
            raise _fault("declared-twice", f"{kind} `{name}` is declared twice", item.span, f"rename or remove one `{name}`", first)  # type: ignore[attr-defined]
        found[name] = item
    return found


def _chain(model: Model, models: dict[str, Model]) -> list[Model]:
    chain = [model]
    while chain[0].extends is not None:
        base = models.get(chain[0].extends)
        if base is None:
            near = nearest(chain[0].extends, list(models))
            help = f"did you mean `{near}`?" if near else 'is a `use "...ckmap"` of its file missing?'
            raise _fault("unknown-model", f"there is no model `{chain[0].extends}`", chain[0].span, help)
        if base in chain:
            raise _fault("circular-extends", f"model `{model.name}` extends itself", model.span, "break the circle of `extends`")
        chain.insert(0, base)
    return chain


def _merge(chain: list[Model]) -> Model:
    """Later models override settings and tensors of the same name and add the rest."""
    out = chain[0]
    for m in chain[1:]:
        settings = {s.name: s for s in out.settings} | {s.name: s for s in m.settings}
        tensors = {t.name: t for t in out.tensors} | {t.name: t for t in m.tensors}
        axes = {a.name: a for a in out.axes} | {a.name: a for a in m.axes}
        selects = {s.name: s for s in out.selects} | {s.name: s for s in m.selects}
        out = Model(
            m.name, None, tuple(axes.values()), tuple(settings.values()), out.refinements + m.refinements,
            out.requires + m.requires, tuple(tensors.values()), tuple(selects.values()), m.span,
        )  # fmt: skip
    _unique(chain[-1].axes, "axis")
    _unique(chain[-1].tensors, "tensor")
    _unique(chain[-1].settings, "setting")
    return out


Start: TypeAlias = tuple[tuple[str | Hole, ...], Expr | None]  # a prefix, and when it is the one
Prefixed: TypeAlias = tuple[Layout, tuple[Start, ...], tuple[str, ...]]  # last the key under which its config's keys stand


def _layout_chain(layout: Layout, known: dict[str, Layout], inherited: dict[Span, Layout], within: tuple[Layout, ...] = ()) -> list[Prefixed]:
    """All that a layout extends, each once, and itself, with the prefixes of their names. One that extends its own name
    extends the one that it replaces."""
    chain: list[Prefixed] = []
    for each in layout.extends:
        same = each.name == layout.name
        base = inherited.get(layout.span) if same else known.get(each.name)
        if base in (*within, layout) or (same and base is None):
            outer = (*within, layout)[0]
            raise _fault("circular-extends", f"layout `{outer.name}` extends itself", outer.span, "break the circle of `extends`")
        if base is None:
            near = nearest(each.name, list(known))
            raise _fault("unknown-layout", f"there is no layout `{each.name}` to extend", each.span, f"did you mean `{near}`?" if near else "")
        found = [
            (inner, tuple((outer + text, _both(when, guard)) for outer, when in _starts(each) for text, guard in starts), each.keys + keys)
            for inner, starts, keys in _layout_chain(base, known, inherited, (*within, layout))
        ]
        chain += [x for x in found if x not in chain]
    return [*chain, (layout, (((), None),), ())]


def _starts(base: Base) -> tuple[Start, ...]:
    """The prefix of what is extended; none where its guard does not hold."""
    if base.under is None or base.when is None:
        return ((base.under.parts if base.under is not None else (), None),)
    return (base.under.parts, base.when), ((), Unary("not", base.when, base.span))


def _flatten(chain: list[Prefixed]) -> FlatLayout:
    params: dict[str, Param] = {}
    rules: list[FlatRule] = []
    ignores: list[Ignore] = []
    items: list[LayoutItem] = []
    block = 0
    for layout, starts, keys in chain:
        params |= _unique(layout.params, "parameter")
        own: list[FlatRule] = []
        own_items: list[LayoutItem] = []
        for item, parents in _walk(layout.items, ()):
            match item:
                case Rule():
                    block += 0 if parents else 1
                    own += [FlatRule(each, block) for each in _within(item, parents, starts)]
                case Ignore():
                    ignores += _within(item, parents, starts)
                case Under():
                    block += 1
                case Config() | Require():
                    own_items.append(keys_under(item, keys))
                case _:
                    own_items.append(item)
        rules = _replaced(rules, own)
        own_items = [merged(items, x) if isinstance(x, Config) else x for x in own_items]
        replaced = {_kind(x) for x in own_items} - {None}
        items = [x for x in items if _kind(x) not in replaced] + own_items
    last = chain[-1][0]
    words = frozenset(c for layout, _, _ in chain for p in layout.params for c in p.choices)
    return FlatLayout(last.name, tuple(params.values()), tuple(rules), tuple(ignores), tuple(items), last.span, words)


def _replaced(inherited: list[FlatRule], own: list[FlatRule]) -> list[FlatRule]:
    """A layout's own rules stand where the inherited ones of the same first name stood, or at the end."""
    by_name: dict[str, list[FlatRule]] = {}
    for rule in own:
        by_name.setdefault(_text(rule.rule.names[0]), []).append(rule)
    left = dict.fromkeys(by_name)
    out: list[FlatRule] = []
    for rule in inherited:
        name = _text(rule.rule.names[0])
        if name not in by_name:
            out.append(rule)
        elif name in left:
            out += [replace(r, block=rule.block) for r in by_name[name]]
            del left[name]
    return out + [r for r in own if _text(r.rule.names[0]) in left]


def _kind(item: LayoutItem) -> tuple[str, str] | None:
    """What an item replaces when a layout extends another: items of its kind, for some of one name. None: it adds."""
    match item:
        case Files() | Formats() | Stages() | State() | Config():
            return type(item).__name__, ""
        case Let(name) | Refine(name):
            return type(item).__name__, name
    return None


def _walk(items: tuple[LayoutItem, ...], parents: tuple[Under, ...]) -> Iterable[tuple[LayoutItem, tuple[Under, ...]]]:
    for item in items:
        if isinstance(item, Under):
            if not parents:
                yield item, parents
            yield from _walk(item.items, (*parents, item))
        else:
            yield item, parents


Spelled = TypeVar("Spelled", Rule, Ignore)


def _within(item: Spelled, parents: tuple[Under, ...], before: tuple[Start, ...]) -> list[Spelled]:
    """With the prefixes, `before` first, and the guards of what stands around it: one for each choice of prefixes."""
    starts: list[tuple[tuple[str | Hole, ...], Expr | None, Expr | None]] = [(start, when, None) for start, when in before]
    for under in parents:
        starts = [
            (start + text, _both(when, guard), _both(where, picked)) for start, when, where in starts for text, guard, picked in _choices(under)
        ]
    return [
        replace(
            item, names=tuple(Pattern(_joined(start + p.parts), p.span) for p in item.names),
            when=_both(when, item.when), where=_both(where, item.where),
        )
        for start, when, where in starts
    ]  # fmt: skip


def _choices(under: Under) -> Iterable[tuple[tuple[str | Hole, ...], Expr | None, Expr | None]]:
    """The prefixes, each with its `when` and `where`: of all, one at most holds for an index."""
    when: Expr | None = None
    where: Expr | None = None
    for prefix in under.prefixes:
        yield prefix.text.parts, _both(when, prefix.when), _both(where, prefix.where)
        if prefix.where is not None:
            where = _both(where, Unary("not", _both(prefix.when, prefix.where) or prefix.where, prefix.span))
        elif prefix.when is not None:
            when = _both(when, Unary("not", prefix.when, prefix.span))


def _joined(parts: tuple[str | Hole, ...]) -> tuple[str | Hole, ...]:
    out: list[str | Hole] = []
    for part in parts:
        if out and isinstance(part, str) and isinstance(out[-1], str):
            out[-1] += part
        else:
            out.append(part)
    return tuple(out)


def _both(a: Expr | None, b: Expr | None) -> Expr | None:
    return a if b is None else b if a is None else Binary("and", a, b, b.span)


def _text(pattern: Pattern) -> str:
    return "".join(p if isinstance(p, str) else "{" + p.axis + "}" for p in pattern.parts)
