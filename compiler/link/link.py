"""Parsed files in, families out: `extends` followed, prefixes, guards and choices written into each rule.

A family is a model with every layout that is written for it or for a model it extends, and that has a place for all that it
certainly has.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import chain as joined

from ...dsl.diagnostic import fault
from ...dsl.nearest import did_you_mean
from ...dsl.tree import Base, Layout, Mapping, Model, Span, TensorDecl
from .fit_family import lacked
from .flat import Family, unique
from .flatten import Flatten, Prefixed
from .guards import both, halves, negated
from .limits import MOST_IN_ALL, MOST_LAYOUTS, MOST_NAMES, check_deep, check_size
from .parts import as_part
from .spell_out import Start
from .statements import check_places, check_statements


def link(mappings: Sequence[Mapping], bases: bool = False) -> tuple[Family, ...]:
    """All families of the files given, which together must hold everything that they name. With `bases` also the layouts
    that are only there to be extended, and that nothing here extends."""
    models = unique([m for f in mappings for m in f.models], "model")
    for model in models.values():
        check_places(model)
    layouts: dict[str, list[Layout]] = {name: [] for name in models}
    for layout in (x for f in mappings for x in f.layouts):
        if layout.model not in models:
            raise fault("unknown-model", f"there is no model `{layout.model}`", layout.span, help=did_you_mean(layout.model, models))
        check_statements(layout)
        layouts[layout.model].append(layout)
    families: dict[str, Family] = {}
    flatten = Flatten(lambda name: families[name])
    size = 0
    for name in _parts_first(models):
        whole = _merge(_chain(models[name], models), lambda part: families[part].model)
        size += _size(whole)
        check_size(size, MOST_IN_ALL, "all models have", "names", models[name].span)
        families[name] = _family(models[name], whole, models, layouts, flatten, bases)
    return tuple(families[name] for name in models)


def _family(
    model: Model, whole: Model, models: dict[str, Model], layouts: dict[str, list[Layout]], flatten: Flatten, with_bases: bool
) -> Family:
    chain = _chain(model, models)
    known: dict[str, Layout] = {}
    inherited: dict[Span, Layout] = {}  # what a layout replaces, by the place of that layout
    for m in chain:  # a layout of the model itself stands in the place of an inherited one of its name
        own = unique(layouts[m.name], "layout")
        inherited |= {x.span: known[name] for name, x in own.items() if name in known}
        known |= own
    bases = {b.name for m in chain for x in layouts[m.name] for b in x.extends if b.name != x.name}
    done: dict[int, list[Prefixed]] = {}
    chains = [_layout_chain(x, known, inherited, done) for x in known.values()]
    flat = [flatten(each, whole) for each in chains if not each[-1][0].base]
    flat = [x for x in flat if x.rules or x.name not in bases]  # what others extend may have no rules itself
    used = {layout.name for each in chains if not each[-1][0].base for layout, _, _ in each}
    extended = tuple(flatten(each, whole) for each in chains if with_bases and each[-1][0].base and each[-1][0].name not in used)
    mine = frozenset(x.name for x in known.values() if x.model == model.name)
    lacking = {x.name: tensor for x in flat if x.name not in mine and (tensor := lacked(whole, x)) is not None}
    kept = tuple(x for x in flat if x.name not in lacking)
    return Family(model.name, whole, kept, mine, tuple(m.name for m in chain[:-1]), lacking, extended)


def _parts_first(models: dict[str, Model]) -> list[str]:
    """The names of the models, each after those that are parts of it."""
    done: dict[str, int] = {}  # how deep parts are in it

    def add(name: str, within: tuple[str, ...]) -> None:
        if name in done:
            return
        done_below = 0
        check_deep(len(within), f"model `{(*within, name)[0]}` has parts through", models[(*within, name)[0]].span)
        for m in _chain(models[name], models):
            for part in m.parts:
                if part.model in (*within, name):
                    raise fault("circular-extends", f"model `{name}` is a part of itself", part.span, help="break the circle of parts")
                if part.model not in models:
                    help = did_you_mean(part.model, models, 'is a `use "...ckmap"` of its file missing?')
                    raise fault("unknown-model", f"there is no model `{part.model}`", part.span, help=help)
                add(part.model, (*within, name))
                done_below = max(done_below, done[part.model] + 1)
        check_deep(done_below, f"model `{name}` has parts through", models[name].span)
        done[name] = done_below

    for name in models:
        add(name, ())
    return list(done)


def _chain(model: Model, models: dict[str, Model]) -> list[Model]:
    chain = [model]
    while chain[0].extends is not None:
        base = models.get(chain[0].extends)
        if base is None:
            help = did_you_mean(chain[0].extends, models, 'is a `use "...ckmap"` of its file missing?')
            raise fault("unknown-model", f"there is no model `{chain[0].extends}`", chain[0].span, help=help)
        if any(base is each for each in chain):
            raise fault("circular-extends", f"model `{model.name}` extends itself", model.span, help="break the circle of `extends`")
        check_deep(len(chain), f"model `{model.name}` extends", model.span)
        chain.insert(0, base)
    return chain


def _merge(chain: list[Model], merged: Callable[[str], Model]) -> Model:
    """Later models override settings and tensors of the same name and add the rest. Parts, which `merged` gives, come before
    what is a model's own."""
    out = Model(chain[0].name, None, (), (), (), (), ())
    for own in chain:
        for m in joined((as_part(merged(part.model), part) for part in own.parts), (own,)):
            plain, indexed = {s.name: s for s in m.settings}, {s.name: s for s in m.selects}  # either replaces either
            settings = {s.name: s for s in out.settings if s.name not in indexed} | plain
            tensors = {t.name: t for t in out.tensors} | {t.name: t for t in m.tensors}
            axes = {a.name: a for a in out.axes} | {a.name: a for a in m.axes}
            selects = {s.name: s for s in out.selects if s.name not in plain} | indexed
            out = Model(
                own.name, None, tuple(axes.values()), tuple(settings.values()), out.refinements + m.refinements,
                out.requires + m.requires, tuple(tensors.values()), tuple(selects.values()), out.parts, own.span,
            )  # fmt: skip
            check_size(_size(out), MOST_NAMES, f"model `{chain[-1].name}` has", "names", chain[-1].span)
        out = replace(out, parts=out.parts + own.parts)
    unique(out.parts, "part")
    unique(chain[-1].axes, "axis")
    unique(chain[-1].tensors, "tensor")
    unique((*chain[-1].settings, *chain[-1].selects), "setting")
    picking = {s.name for s in out.selects}
    return replace(out, tensors=tuple(_halved(tensor, picking) for tensor in out.tensors))


def _size(model: Model) -> int:
    return sum(map(len, (model.axes, model.settings, model.refinements, model.requires, model.tensors, model.selects)))


def _halved(tensor: TensorDecl, indexed: Collection[str]) -> TensorDecl:
    """The tensor with its guard in two halves. A tie is of a whole tensor."""
    when, where = halves(both(tensor.when, tensor.where), indexed)
    if tensor.tied_to is not None and where is not None:
        title, help = f"`{tensor.name}` is tied to `{tensor.tied_to}` at some indices only, which cannot be said", "tie it by a setting that no index has"
        raise fault("tied-index", title, where.span, help=help)
    return replace(tensor, when=when, where=where)


def _layout_chain(
    layout: Layout, known: dict[str, Layout], inherited: dict[Span, Layout], done: dict[int, list[Prefixed]], within: tuple[Layout, ...] = ()
) -> list[Prefixed]:
    """All that a layout extends, each once, and itself, with the prefixes of their names. One that extends its own name
    extends the one that it replaces. `done` has the layouts that were followed before."""
    if id(layout) in done:
        return done[id(layout)]
    outer = (*within, layout)[0]
    check_size(len(within) + 1, MOST_LAYOUTS, f"layout `{outer.name}` is made of", "layouts", outer.span)
    chain: dict[object, Prefixed] = {}
    size = 1
    for each in layout.extends:
        same = each.name == layout.name
        base = inherited.get(layout.span) if same else known.get(each.name)
        if any(base is each for each in (*within, layout)) or (same and base is None):
            raise fault("circular-extends", f"layout `{outer.name}` extends itself", outer.span, help="break the circle of `extends`")
        if base is None:
            raise fault("unknown-layout", f"there is no layout `{each.name}` to extend", each.span, help=did_you_mean(each.name, known))
        for inner, starts, keys in _layout_chain(base, known, inherited, done, (*within, layout)):
            below = tuple((start + text, both(when, guard)) for start, when in _starts(each) for text, guard in starts)
            if (key := (id(inner), below, each.keys + keys)) not in chain:
                chain[key] = inner, below, each.keys + keys
                size += len(below)
                check_size(size, MOST_LAYOUTS, f"layout `{layout.name}` is made of", "layouts", layout.span)
    return done.setdefault(id(layout), [*chain.values(), (layout, (((), None),), ())])


def _starts(base: Base) -> tuple[Start, ...]:
    """The prefix of what is extended; none where its guard does not hold."""
    if base.under is None or base.when is None:
        return ((base.under.parts if base.under is not None else (), None),)
    return (base.under.parts, base.when), ((), negated(base.when, base.span))
