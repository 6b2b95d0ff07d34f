"""What a scalar expression reads: its names, config keys and functions. Nothing is evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from ...dsl.tree import Call, Expr, Key, Ref, Unused
from ...dsl.walk import children, rewritten

Node = TypeVar("Node")


def inside(expr: Any) -> Iterator[Any]:
    """The expression and all within it, in order of appearance. What a call to `stored` or `lacks` names is no value."""
    yield expr
    if not (isinstance(expr, Call) and expr.function in ("stored", "lacks")):
        for child in children(expr):
            yield from inside(child)


def keys_under(node: Node, prefix: tuple[str, ...]) -> Node:
    """A tree with all its config keys below another, those among them that a config does not use."""

    def change(each: Any) -> Any:
        match each:
            case Key(path):
                return replace(each, path=prefix + path)
            case Unused(globs):
                return replace(each, globs=tuple(".".join((*prefix, glob)) for glob in globs))
        return each

    return rewritten(node, change) if prefix else node


def refs(expr: Expr) -> list[str]:
    """The names that an expression reads, in order of appearance."""
    return [node.name for node in inside(expr) if isinstance(node, Ref)]


def keys(expr: Expr) -> list[tuple[str, ...]]:
    """The config keys that an expression reads, by their paths, in order of appearance."""
    return [node.path for node in inside(expr) if isinstance(node, Key)]


def reads_keys(expr: Expr) -> bool:
    """Whether an expression is about the config file, and so is asked where the config is read."""
    return bool(keys(expr))


def calls_through(expr: Expr, named: Mapping[str, Expr]) -> set[str]:
    """The functions that an expression calls, itself or through the names in it."""
    found, todo, seen = set[str](), [expr], set[str]()
    while todo:
        each = todo.pop()
        found |= calls(each)
        new = {name for name in refs(each) if name in named} - seen
        seen |= new
        todo += [named[name] for name in new]
    return found


def calls(expr: Expr) -> set[str]:
    """The functions that an expression calls."""
    return {node.function for node in inside(expr) if isinstance(node, Call)}
