"""A layout and all that it extends in, one flat layout out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from ...dsl.diagnostic import fault
from ...dsl.nearest import did_you_mean
from ...dsl.tree import (
    Carry,
    Config,
    Files,
    Formats,
    Hole,
    Ignore,
    Layout,
    LayoutItem,
    Let,
    Model,
    NamedPrefix,
    Note,
    Omit,
    Param,
    PartLayout,
    Pattern,
    Ref,
    Refine,
    Require,
    Rule,
    Stages,
    State,
    Text,
    Under,
)
from ..values.lets import labels
from ..values.walk_expr import keys_under
from .flat import Family, FlatLayout, FlatRule, unique
from .guards import both, halves
from .limits import MOST_IN_ALL, MOST_PREFIXES, MOST_RULES, check_size
from .merge_config import merged, whole
from .parts import inner, layout_as_part
from .spell_out import Start, check_prefixes, chosen, file_choices, joined, rule_choices, with_biases, within
from .statements import choices

Prefixed: TypeAlias = tuple[Layout, tuple[Start, ...], tuple[str, ...]]  # last the key under which its config's keys stand


class Flatten:
    """Flattens the layouts of all families. Most families share most layouts: each is flattened once."""

    def __init__(self, family: Callable[[str], Family]) -> None:
        self._family = family
        self._done: dict[tuple[object, ...], FlatLayout] = {}
        self._size = 0  # of all that was written out

    def __call__(self, chain: Sequence[Prefixed], model: Model) -> FlatLayout:
        """The last layout of `chain`, in which every layout stands after those that it extends, for `model`."""
        indexed = frozenset(s.name for s in model.selects)
        placed = tuple((t.name, t.before, t.after) for t in model.tensors if t.before or t.after)
        key = (*((id(layout), starts, keys) for layout, starts, keys in chain), indexed, placed, model.parts)
        self._size += 1
        if key not in self._done:
            self._done[key] = out = self._flatten(chain, model, indexed)
            self._size += len(out.rules) + len(out.ignores)
        check_size(self._size, MOST_IN_ALL, "all layouts have", "rules", chain[-1][0].span)
        return self._done[key]

    def _flatten(self, chain: Sequence[Prefixed], model: Model, indexed: frozenset[str]) -> FlatLayout:
        last = chain[-1][0]
        named = {x.name: x for layout, _, _ in chain for x in layout.items if isinstance(x, NamedPrefix)}
        check_prefixes(named)
        _check_choices(layout for layout, _, _ in chain)
        out = FlatLayout(last.name, (), (), (), last.span, frozenset(c for layout, _, _ in chain for p in layout.params for c in p.choices))
        blocks: dict[str, int] = {}
        of_parts: list[Config] = []  # their configs
        for layout, starts, keys in chain:
            before, out = out.config, _extended(out, layout, starts, keys, named, blocks)
            if before is not None and out.config is not None and out.config.file != before.file:
                of_parts.clear()  # they were about a file that this layout does not have
            for item in layout.items:
                if isinstance(item, PartLayout):
                    own = self._part(item, model)
                    below = keys + item.keys
                    under = [(outer + text, both(when, guard)) for outer, when in starts for text, guard in _starts(item, named)]
                    check_size(len(under), MOST_PREFIXES, f"`part {item.name}` has", "prefixes", item.span)
                    out = _with_part(out, own, under, below)
                    of_parts += [keys_under(own.config, below)] if own.config is not None else []
        return self._settled(replace(out, config=whole(out.config, of_parts)), model, indexed)

    def _part(self, item: PartLayout, model: Model) -> FlatLayout:
        """The layout of a part of the model, as it is within that of the whole."""
        part = next((x for x in model.parts if x.name == item.name), None)
        if part is None:
            help = did_you_mean(item.name, [x.name for x in model.parts], "declare it in the model")
            raise fault("unknown-model-part", f"model `{model.name}` has no part `{item.name}`", item.span, help=help)
        family = self._family(part.model)
        held = next((x for x in family.layouts if x.name == item.layout), None)
        if held is None:
            help = did_you_mean(item.layout, [x.name for x in family.layouts], f"its layouts are {', '.join(x.name for x in family.layouts)}")
            raise fault("unknown-layout", f"`{part.model}` has no layout `{item.layout}`", item.span, help=help)
        return layout_as_part(held, family.model, part.name)

    def _settled(self, out: FlatLayout, model: Model, indexed: frozenset[str]) -> FlatLayout:
        """What is known once all is inherited: biases of rules with a bar, tensors on the stage where the model has them, names
        of parts as their tensors, and guards in their two halves."""
        placed = {t.name: "first" if t.before else "last" for t in model.tensors if out.stages is not None and out.stages.axis in (t.before, t.after)}
        groups = {part.name: tuple(inner(part.name, t.name) for t in self._family(part.model).model.tensors) for part in model.parts}
        return replace(
            out,
            rules=tuple(replace(flat, rule=_rule(flat.rule, out, placed, indexed)) for flat in sorted(out.rules, key=lambda flat: flat.block)),
            ignores=tuple(_halved(ignore, indexed) for ignore in out.ignores),
            omits=tuple(replace(x, tensors=tuple(name for each in x.tensors for name in groups.get(each, (each,)))) for x in out.omits),
        )


def _check_choices(chain: Iterable[Layout]) -> None:
    """A parameter that is inherited with choices is one of these, also where a layout between has made it always one of them."""
    known: dict[str, tuple[str, ...]] = {}
    for layout in chain:
        for p in layout.params:
            words = p.choices or ((p.default.name,) if isinstance(p.default, Ref) else ())
            choices = known.setdefault(p.name, p.choices) if p.choices else known.get(p.name, ())
            strange = next((word for word in words if choices and word not in choices), None)
            if strange is not None:
                title = f"`{p.name}` is inherited as one of {', '.join(choices)}, and `{strange}` is none of them"
                raise fault("unknown-choice", title, p.default.span, help=did_you_mean(strange, choices, f"it may be {', '.join(choices)}"))


def _starts(item: PartLayout, named: Mapping[str, NamedPrefix]) -> tuple[Start, ...]:
    return tuple(chosen(item.prefixes, named)) if item.prefixes else (((), None),)


def _with_part(out: FlatLayout, own: FlatLayout, starts: Sequence[Start], keys: tuple[str, ...]) -> FlatLayout:
    """The layout with the rules of that of a part under these prefixes, and with the rest but its config."""
    block = max((rule.block for rule in out.rules), default=0) + 1
    check_size(len(out.rules) + len(out.ignores) + (len(own.rules) + len(own.ignores)) * len(starts), MOST_RULES, f"layout `{out.name}` has", "rules", out.span)
    rules = [
        FlatRule(replace(flat.rule, names=_after(text, flat.rule.names), when=both(when, flat.rule.when)), block + flat.block)
        for flat in own.rules
        for text, when in starts
    ]
    ignores = [replace(x, names=_after(text, x.names), when=both(when, x.when)) for x in own.ignores for text, when in starts]
    declared = {p.name for p in out.params}
    return replace(
        out, params=(*out.params, *(p for p in own.params if p.name not in declared)), rules=(*out.rules, *rules), ignores=(*out.ignores, *ignores), words=out.words | own.words,
        lets=out.lets + own.lets, refinements=out.refinements + own.refinements, omits=out.omits + own.omits,
        requires=out.requires + tuple(keys_under(x, keys) for x in own.requires), notes=out.notes + own.notes, carry=out.carry + own.carry,
    )  # fmt: skip


def _after(text: Any, names: Iterable[Pattern]) -> tuple[Pattern, ...]:
    return tuple(Pattern(joined(text + name.parts), name.span) for name in names)


def _by_name(inherited: tuple[Param, ...], own: tuple[Param, ...]) -> tuple[Param, ...]:
    return tuple(({p.name: p for p in inherited} | {p.name: p for p in own}).values())


def _extended(
    out: FlatLayout, layout: Layout, starts: tuple[Start, ...], keys: tuple[str, ...], named: Mapping[str, NamedPrefix], blocks: dict[str, int]
) -> FlatLayout:
    """What a layout inherits, with its own items: they replace those of their kind, or of their kind and name, or add to them.

    `blocks` are those of named prefixes that repeat, such as one for each layer: what layouts say under one is one block.
    """
    rules: list[FlatRule] = []
    ignores: list[Ignore] = []
    last = max((rule.block for rule in out.rules), default=0)
    block = 0
    for item, parents in _walk(layout.items, ()):
        if not parents and (isinstance(item, Under) or _is(item, Rule)):
            last += 1
            name = _repeated(item, named) if isinstance(item, Under) else None
            block = blocks.setdefault(name, last) if name is not None else last
        if _is(item, Rule):
            rules += [FlatRule(each, block) for rule in rule_choices(item) for each in within(rule, parents, starts, named)]
        elif isinstance(item, Ignore):
            ignores += within(item, parents, starts, named)
        check_size(len(out.rules) + len(out.ignores) + len(rules) + len(ignores), MOST_RULES, f"layout `{out.name}` has", "rules", layout.span)
    own = [item for item in layout.items if not isinstance(item, (Rule, Ignore, Under, NamedPrefix, PartLayout))]
    files = _one(own, Files)
    lets = [each for x in own if _is(x, Let) for each in choices(x)]
    let_names = {x.name for x in lets}
    refined = {x.axis for x in own if isinstance(x, Refine)}
    config = out.config
    for item in own:
        if isinstance(item, Config):
            config = merged(config, keys_under(item, keys))
    return replace(
        out,
        params=_by_name(out.params, tuple(unique(layout.params, "parameter").values())),
        rules=tuple(_replaced(out.rules, rules)),
        ignores=(*out.ignores, *ignores),
        files=tuple(file_choices(files)) if files is not None else out.files,
        formats=_one(own, Formats) or out.formats,
        config=config,
        stages=_one(own, Stages) or out.stages,
        state=_one(own, State) or out.state,
        lets=(*(x for x in out.lets if x.name not in let_names), *lets),
        refinements=(*(x for x in out.refinements if x.axis not in refined), *(x for x in own if isinstance(x, Refine))),
        requires=(*out.requires, *(keys_under(x, keys) for x in own if isinstance(x, Require))),
        omits=(*out.omits, *(x for x in own if isinstance(x, Omit))),
        notes=(*out.notes, *(x for x in own if isinstance(x, Note))),
        texts=(*out.texts, *(x for x in own if isinstance(x, Text))),
        carry=(*out.carry, *(x for x in own if isinstance(x, Carry))),
    )


def _repeated(under: Under, named: Mapping[str, NamedPrefix]) -> str | None:
    """The named prefix with which all its prefixes begin, where that has an index, as of layers; else None."""
    name = under.prefixes[0].name
    if name is None or name not in named or any(prefix.name != name for prefix in under.prefixes):
        return None
    return name if all(any(isinstance(part, Hole) for part in text) for text, _ in chosen(named[name].prefixes, named)) else None


def _is(item: LayoutItem, kind: type) -> bool:
    return isinstance(choices(item)[0], kind)


def _one(items: Iterable[LayoutItem], kind: type) -> Any:
    """The statement of a kind that stands once. Several choices are one statement."""
    return next((x for x in items if _is(x, kind)), None)


def _replaced(inherited: Sequence[FlatRule], own: list[FlatRule]) -> list[FlatRule]:
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


def _walk(items: tuple[LayoutItem, ...], parents: tuple[Under, ...]) -> Iterable[tuple[LayoutItem, tuple[Under, ...]]]:
    for item in items:
        if isinstance(item, Under):
            if not parents:
                yield item, parents
            yield from _walk(item.items, (*parents, item))
        else:
            yield item, parents


def _text(pattern: Pattern) -> str:
    return "".join(p if isinstance(p, str) else "{" + p.axis + "}" for p in pattern.parts)


def _rule(rule: Rule, layout: FlatLayout, placed: Mapping[str, str], indexed: frozenset[str]) -> Rule:
    found = labels(rule.dims, layout.lets)
    rule = with_biases(rule, found)
    if rule.on is None and placed:
        renames = {r.label: r.tensor for r in rule.renames}
        places = {placed.get(name) for name in ([rule.tensor] if rule.tensor else [renames.get(label, label) for label in found])}
        if len(places) == 1:
            rule = replace(rule, on=places.pop())
    found_rule: Rule = _halved(rule, indexed)
    return found_rule


def _halved(item: Any, indexed: frozenset[str]) -> Any:
    when, where = halves(both(item.when, item.where), indexed)
    return replace(item, when=when, where=where)
