"""What a scalar expression reads: its names, config keys and functions. Nothing is evaluated."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ...dsl.tree import Binary, Call, Conditional, Expr, Key, Match, Ref, Unary


def inside(expr: Expr) -> Iterator[Expr]:
    """The expression and all within it, in order of appearance. What a call to `stored` or `lacks` names is no value."""
    yield expr
    match expr:
        case Unary(_, operand):
            yield from inside(operand)
        case Binary(_, left, right):
            yield from inside(left)
            yield from inside(right)
        case Conditional(test, yes, no):
            yield from inside(test)
            yield from inside(yes)
            yield from inside(no)
        case Match(subject, pairs):
            yield from inside(subject)
            for pair in pairs:
                yield from inside(pair.result)
        case Call(function, args) if function not in ("stored", "lacks"):
            for arg in args:
                yield from inside(arg)


def under_key(expr: Expr, prefix: tuple[str, ...]) -> Expr:
    """The expression with all its config keys below another."""
    match expr:
        case Key(path):
            return replace(expr, path=prefix + path)
        case Unary(_, operand):
            return replace(expr, operand=under_key(operand, prefix))
        case Binary(_, left, right):
            return replace(expr, left=under_key(left, prefix), right=under_key(right, prefix))
        case Conditional(test, yes, no):
            return replace(expr, test=under_key(test, prefix), yes=under_key(yes, prefix), no=under_key(no, prefix))
        case Match(subject, pairs):
            results = tuple(replace(pair, result=under_key(pair.result, prefix)) for pair in pairs)
            return replace(expr, subject=under_key(subject, prefix), pairs=results)
        case Call(_, args):
            return replace(expr, args=tuple(under_key(arg, prefix) for arg in args))
    return expr


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
