"""One walk over every kind of tree: the nodes within a node, and a tree with some of its nodes replaced."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import fields, is_dataclass, replace
from functools import cache
from typing import Any, TypeVar, cast

from .tree import Span

Node = TypeVar("Node")


@cache
def _inner(kind: Hashable) -> tuple[str, ...]:
    """The fields of a kind of node that may hold nodes."""
    return tuple(field.name for field in fields(cast(type, kind)) if field.name != "span")


@cache
def _is_node(kind: Hashable) -> bool:
    return is_dataclass(kind) and kind is not Span


def children(node: Any) -> Iterator[Any]:
    """The nodes directly within a node, in the order of its fields."""
    for name in _inner(cast(Hashable, type(node))):
        value = getattr(node, name)
        if isinstance(value, tuple):
            yield from _nodes(value)
        elif _is_node(cast(Hashable, type(value))):
            yield value


def _nodes(values: tuple[Any, ...]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, tuple):
            yield from _nodes(value)
        elif _is_node(cast(Hashable, type(value))):
            yield value


def walk(node: Any) -> Iterator[Any]:
    """A node and all within it, in order of appearance."""
    yield node
    for child in children(node):
        yield from walk(child)


def rewritten(node: Node, change: Callable[[Any], Any]) -> Node:
    """The tree with `change` made to every node, the inner ones first. What is not changed stays the same object."""
    new = {}
    for name in _inner(cast(Hashable, type(node))):
        value = getattr(node, name)
        if (other := _rewritten(value, change)) is not value:
            new[name] = other
    found: Node = change(replace(node, **new) if new else node)  # type: ignore[type-var]
    return found


def _rewritten(value: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(value, tuple):
        items = tuple(_rewritten(each, change) for each in value)
        return value if all(a is b for a, b in zip(items, value, strict=True)) else items
    if is_dataclass(value) and not isinstance(value, (Span, type)):
        return rewritten(value, change)
    return value
