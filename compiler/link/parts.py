"""A model or a layout in, the same as part of another out: every name of its own gets the part's name before it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ...dsl.tree import (
    AxisDecl,
    AxisRef,
    Bind,
    Hole,
    Let,
    Model,
    Omit,
    Pad,
    Param,
    Part,
    Ref,
    Refine,
    Rename,
    Rule,
    Select,
    Setting,
    Slice,
    Stages,
    TensorDecl,
    Term,
)
from ...dsl.walk import rewritten
from .flat import FlatLayout


def inner(part: str, name: str) -> str:
    """What a name of a part is called in the whole."""
    return f"{part}_{name}"


def as_part(model: Model, part: Part) -> Model:
    """The model as it is within another."""
    change = _renaming(part.name, names_of(model))
    found = rewritten(model, change)
    tensors = tuple(
        replace(t, optional=t.optional or part.optional, before=part.before, after=part.after) for t in found.tensors
    )
    return replace(found, tensors=tensors)


def names_of(model: Model) -> set[str]:
    """What a model names: axes, settings, parts of axes and tensors."""
    of_parts = {name for refine in model.refinements for name in refine.parts}
    of_model: list[Any] = [*model.axes, *model.settings, *model.tensors, *model.selects]
    return {x.name for x in of_model} | of_parts


def layout_as_part(layout: FlatLayout, model: Model, part: str) -> FlatLayout:
    """The layout as it is within one of the whole, whose own files, format and stages apply, and with them where things stand."""
    own = {p.name for p in layout.params} | {let.name for let in layout.lets} | {name for refine in layout.refinements for name in refine.parts}
    found = rewritten(layout, _renaming(part, names_of(model) | own))
    rules = tuple(replace(flat, rule=replace(flat.rule, on=None)) for flat in found.rules)
    return replace(found, rules=rules, files=(), formats=None, stages=None, state=None, texts=())


def _renaming(part: str, names: Iterable[str]) -> Callable[[Any], Any]:
    table = {name: inner(part, name) for name in names}

    def change(node: Any) -> Any:
        match node:
            case Ref(name) | AxisRef(name) | AxisDecl(name) | Setting(name) | Let(name) | Param(name) | Bind(name) if name in table:
                return replace(node, name=table[name])
            case TensorDecl() | Select():
                return _fields(node, table, "name", "axis", "tied_to", "before", "after")
            case Hole() | Refine():
                found = _fields(node, table, "axis", "rank")
                return replace(found, parts=tuple(table.get(name, name) for name in node.parts)) if isinstance(node, Refine) else found
            case Slice() | Pad():
                return _fields(node, table, "rank", "fill")
            case Rule():
                return _fields(node, table, "tensor")
            case Rename() | Term():
                return _fields(node, table, "label", "tensor")
            case Stages():
                return _fields(node, table, "axis", "rank", "interleave", "beyond")
            case Omit(tensors):
                return replace(node, tensors=tuple(table.get(name, name) for name in tensors))
        return node

    return change


def _fields(node: Any, table: Mapping[str, str], *names: str) -> Any:
    """The node with the names in these fields replaced, those of them that it has."""
    changes = {name: table[value] for name in names if isinstance(value := getattr(node, name, None), str) and value in table}
    return replace(node, **changes) if changes else node
