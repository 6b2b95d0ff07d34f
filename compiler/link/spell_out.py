"""Statements as they are written in, one for each name and choice out: prefixes, bars, choices and parts of file names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice, product
from typing import TypeAlias, TypeVar

from ...dsl.diagnostic import fault
from ...dsl.nearest import did_you_mean
from ...dsl.tree import (
    Choices,
    Expr,
    Files,
    Hole,
    Ignore,
    LayoutItem,
    NamedPrefix,
    Pattern,
    Prefix,
    Rename,
    Rule,
    Sometimes,
    Under,
)
from .guards import both, negated
from .limits import MOST_FILES, MOST_PREFIXES, check_deep, check_size
from .statements import choices

Parts: TypeAlias = tuple[str | Hole, ...]
Start: TypeAlias = tuple[Parts, Expr | None]  # a prefix, and when it is the one
Spelled = TypeVar("Spelled", Rule, Ignore)
WEIGHT, BIAS = ".weight", ".bias"


def within(item: Spelled, parents: tuple[Under, ...], before: tuple[Start, ...], named: Mapping[str, NamedPrefix]) -> list[Spelled]:
    """With the prefixes, `before` first, and the guards of what stands around it: one for each choice of prefixes."""
    starts: list[Start] = list(before)
    for under in parents:
        starts = [(start + text, both(when, guard)) for start, when in starts for text, guard in chosen(under.prefixes, named)]
        check_size(len(starts), MOST_PREFIXES, "this has", "prefixes", under.prefixes[0].span)
    return [
        replace(item, names=tuple(Pattern(joined(start + p.parts), p.span) for p in item.names), when=both(when, item.when))
        for start, when in starts
    ]


def check_prefixes(named: Mapping[str, NamedPrefix]) -> None:
    """Every named prefix begins with text, or ends at one through few enough others."""
    known: dict[str, int] = {}  # through how many

    def measure(name: str, within: tuple[str, ...]) -> int:
        deep = 0
        for prefix in named[name].prefixes if name not in known else ():
            if prefix.name in (*within, name):
                raise fault("circular-prefix", f"`prefix {prefix.name}` begins with itself", prefix.span, help="let it begin with text")
            if prefix.name is not None and prefix.name in named:
                first = (*within, name)[0]
                check_deep(len(within) + 1, f"`prefix {first}` begins with", named[first].span)
                deep = max(deep, 1 + measure(prefix.name, (*within, name)))
                check_deep(deep, f"`prefix {name}` begins with", named[name].span)
        return known.setdefault(name, deep)

    for name in named:
        measure(name, ())


def chosen(prefixes: Sequence[Prefix], named: Mapping[str, NamedPrefix]) -> list[Start]:
    """The prefixes, each with its whole guard: at most one of all holds. `check_prefixes` has seen the named ones."""
    found = list(islice(_chosen(prefixes, named), MOST_PREFIXES + 1))
    check_size(len(found), MOST_PREFIXES, "this has", "prefixes", prefixes[0].span)
    return found


def _chosen(prefixes: Sequence[Prefix], named: Mapping[str, NamedPrefix]) -> Iterator[Start]:
    when: Expr | None = None
    for prefix in prefixes:
        for text, guard in _starts(prefix, named):
            yield joined(text + prefix.text.parts), both(when, both(prefix.when, guard))
        if prefix.when is None:
            return
        when = both(when, negated(prefix.when, prefix.span))


def _starts(prefix: Prefix, named: Mapping[str, NamedPrefix]) -> Iterator[Start]:
    if prefix.name is None:
        return iter((((), None),))
    if prefix.name not in named:
        help = did_you_mean(prefix.name, named, f'name it: prefix {prefix.name} = "..."')
        raise fault("unknown-prefix", f"no prefix is called `{prefix.name}`", prefix.span, help=help)
    return _chosen(named[prefix.name].prefixes, named)


def joined(parts: Parts) -> Parts:
    """The parts, neighbouring texts as one."""
    out: list[str | Hole] = []
    for part in parts:
        if out and isinstance(part, str) and isinstance(out[-1], str):
            out[-1] += part
        elif part != "":
            out.append(part)
    return tuple(out)


def rule_choices(item: LayoutItem) -> Iterator[Rule]:
    """The rules of a statement: each is for where its guard holds and none before it does."""
    earlier: Expr | None = None
    for rule in choices(item):
        assert isinstance(rule, Rule)
        yield from _halves_of_bar(replace(rule, when=both(earlier, rule.when)))
        if rule.when is not None:
            earlier = both(earlier, negated(rule.when, rule.span))


def _halves_of_bar(rule: Rule) -> Iterator[Rule]:
    """A rule with a bar is one of a weight and one of its bias, whose labels `with_biases` turns later."""
    if rule.bar is None:
        yield rule
        return
    yield replace(rule, names=_ending(rule, WEIGHT), bar=None)
    bias = None if rule.tensor is None else f"{rule.tensor}_bias"
    yield replace(rule, names=_ending(rule, BIAS), dims=rule.dims[: rule.bar], tensor=bias, elementwise=(), view=(), made=None)


def _ending(rule: Rule, end: str) -> tuple[Pattern, ...]:
    return tuple(Pattern(joined((*name.parts, end)), name.span) for name in rule.names)


def with_biases(rule: Rule, labels: Iterable[str]) -> Rule:
    """The bias of a rule with a bar: each label `q` means `q_bias`."""
    if rule.bar is None:
        return rule
    given = {rename.label for rename in rule.renames}
    more = tuple(Rename(label, f"{label}_bias", rule.span) for label in labels if label not in given)
    return replace(rule, renames=rule.renames + more, bar=None)


def file_choices(item: Files | Choices) -> Iterator[Files]:
    """The choices of file names, parts that are there sometimes written in or left out."""
    for files in choices(item):
        assert isinstance(files, Files)
        guards = list(dict.fromkeys(when for name in files.names if isinstance(name, Sometimes) for _, when in name.parts if when is not None))
        check_size(1 << min(len(guards), 64), MOST_FILES, "this file has", "names", files.span)
        for there in product((True, False), repeat=len(guards)):
            holding = dict(zip(guards, there, strict=True))
            when = files.when
            for guard, holds in holding.items():
                when = both(when, guard if holds else negated(guard, files.span))
            yield Files(tuple(_without(name, holding) for name in files.names), when, files.span)


def _without(name: Pattern | Sometimes, holding: Mapping[Expr, bool]) -> Pattern:
    if isinstance(name, Pattern):
        return name
    kept = tuple(part for text, when in name.parts if when is None or holding[when] for part in text.parts)
    return Pattern(joined(kept), name.span)
