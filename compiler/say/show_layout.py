"""A flat layout and the values of its parameters in, the layout as a mapping file would say it out, every settled guard gone.

A guard is settled if the parameters, and the settings that no config binds, decide it. What depends on a config or on a
checkpoint stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from ...dsl.formatting.format import format_mapping
from ...dsl.tree import (
    Binary,
    Choices,
    Conditional,
    Config,
    Expr,
    Fixed,
    Layout,
    LayoutItem,
    Literal,
    Only,
    Pad,
    Ref,
    Unary,
)
from ...dsl.tree import Mapping as File
from ...dsl.walk import rewritten
from ..identify.match import tensors_of
from ..link.flat import Family, FlatLayout
from ..link.guards import both
from ..values.scope import Scope
from ..values.settled import settled

Item = TypeVar("Item", bound=Any)


def shown_layout(family: Family, layout: FlatLayout, params: Mapping[str, Any]) -> str:
    """The text of one layout of a family. `params` are the values of all its parameters."""
    bound = {entry.name for entry in layout.config.entries} if layout.config is not None else set()
    fixed = {s.name: s.value for s in family.model.settings if s.name not in bound and s.when is None}
    fixed |= {s.name: s.value for s in family.model.selects}
    settle = _Settle(Scope(dict(params), fixed, words=layout.words))
    absent = {t.name for t in family.model.tensors if t.tied_to is None and settle.rest(both(t.when, t.where)) is False}
    rules = [flat.rule for flat in layout.rules if not (named := tensors_of(flat.rule, layout)) or named - absent]
    items: list[LayoutItem] = [*settle.first(layout.files)]
    items += [x for x in (layout.formats, *layout.carry) if x is not None]
    items += [x for x in (layout.stages, *(settle.each((layout.state,)) if layout.state else ())) if x is not None]
    items += [*settle.each(layout.texts), *settle.each(layout.refinements)]
    items += [replace(x, test=_expr(left)) for x in settle.each(layout.requires) if (left := settle.rest(x.test)) is not True]
    items += settle.each(layout.notes)
    if layout.config is not None:
        items.append(settle.config(layout.config))
    lets: dict[str, list[Any]] = {}
    for let in layout.lets:
        lets.setdefault(let.name, []).append(let)
    items += [x for choices in lets.values() for x in settle.first(choices)]
    items += settle.each(layout.omits)
    items += settle.each(map(_whole, rules))
    items += settle.each(map(_whole, layout.ignores))
    said = tuple(replace(p, default=_literal(params[p.name])) for p in layout.params)
    kept = tuple(p for p in said if p.choices or not isinstance(p.default, Ref))  # the others are always one word
    named = {*(a.name for a in family.model.axes), *(s.name for s in family.model.settings), *params, *(c for p in kept for c in p.choices)}
    words = {word: word for word in layout.words - named} | {p.name: str(params[p.name]) for p in said if p not in kept}
    found = Layout(layout.name, family.name, (), kept, tuple(items))
    return format_mapping(File((), (), (rewritten(found, _with_words(words)),)))


def _with_words(words: Mapping[str, str]) -> Callable[[Any], Any]:
    """Puts words as such where a layout of its own would not know them, and leaves out what is decided by them."""

    def change(node: Any) -> Any:
        match node:
            case Ref(name) if name in words:
                return Literal(words[name])
            case Pad(fill=name) if name in words:
                return replace(node, fill=words[name])
            case Binary("==" | "!=" as op, Literal(one), Literal(other)):
                return Literal((one == other) is (op == "=="))
            case Binary("and", Literal(True), rest) | Binary("and", rest, Literal(True)) | Binary("or", Literal(False), rest) | Binary("or", rest, Literal(False)):
                return rest
            case Binary("and", Literal(False), _) | Binary("and", _, Literal(False)):
                return Literal(False)
            case Binary("or", Literal(True), _) | Binary("or", _, Literal(True)):
                return Literal(True)
            case Unary("not", Literal(bool(value))):
                return Literal(not value)
            case Conditional(Literal(bool(value)), yes, no):
                return yes if value else no
        return node

    return change


class _Settle:
    """Guards, as far as a scope decides them."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    def rest(self, guard: Expr | None) -> bool | Expr:
        """True or False where it is decided, else what is left of it."""
        return settled(guard, self.scope)

    def each(self, items: Any) -> list[Any]:
        """The items whose guard may hold, each with what is left of it."""
        out = []
        for item in items:
            left = self.rest(item.when)
            if left is not False:
                out.append(replace(item, when=None if left is True else left))
        return out

    def first(self, choices: Any) -> list[Any]:
        """Choices of which the first whose guard holds is taken, as one statement: none after one that holds for sure."""
        found: dict[Expr | None, Any] = {}
        for item in self.each(choices):
            if None not in found:
                found.setdefault(item.when, item)
        return [Choices(tuple(found.values()))] if len(found) > 1 else list(found.values())

    def config(self, config: Config) -> Config:
        kept = [x for x in config.items if not isinstance(x, (Fixed, Only)) or self.rest(x.when) is not False]
        return replace(config, items=tuple(kept))


def _whole(item: Item) -> Item:
    """Both halves of a guard as one again."""
    found: Item = replace(item, when=both(item.when, item.where), where=None)
    return found


def _expr(left: Any) -> Expr:
    """What is left of a condition, or what it comes to."""
    return Literal(left) if isinstance(left, bool) else left


def _literal(value: Any) -> Expr:
    return Ref(value) if isinstance(value, str) else Literal(value)
