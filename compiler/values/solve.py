"""Scalar expressions backwards: which config keys make an expression come out as a given value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from ...dsl.diagnostic import MappingError
from ...dsl.tree import Binary, Conditional, Expr, Key, Match, Unary
from .scope import Scope, evaluate, same
from .walk_expr import keys

Solved: TypeAlias = Mapping[tuple[str, ...], Any]
NOTHING: Solved = {}


def solve(expr: Expr, value: Any, scope: Scope) -> Solved:
    """The config keys, by path, that make `expr` come out as `value`; the first key on the way is solved for.

    `scope` holds the axes, settings and parameters. Returns nothing where the expression fixes no key (a literal, or a
    test that says nothing about its key).
    """
    try:
        return _solve(expr, value, scope)
    except MappingError:
        return NOTHING  # a part without a value here


def _solve(expr: Expr, value: Any, scope: Scope) -> Solved:
    match expr:
        case Key(path):
            return {path: value}
        case Match(subject, pairs):
            first = next((p for p in pairs if same(evaluate(p.result, scope), value)), None)
            return NOTHING if first is None else _solve(subject, first.value.value, scope)
        case Conditional():
            return _conditional(expr, value, scope)
        case Binary("??", left, right):
            return _solve(left if keys(left) else right, value, scope)
        case Unary("not", operand):
            return _solve(operand, not value, scope)
        case Unary("-", operand) if _number(value) is not None:
            return _solve(operand, -_number(value), scope)  # type: ignore[operator]
        case Binary(("and" | "or") as op, left, right) if value is (op == "and"):
            return {**_solve(right, value, scope), **_solve(left, value, scope)}
        case Binary("and" | "or", left, right):  # one side is enough; a side without keys cannot be changed
            return _solve(left if keys(left) else right, value, scope)
        case Binary(("==" | "!=") as op, left, right) if value is (op == "==") and bool(keys(left)) != bool(keys(right)):
            return _solve(left, evaluate(right, scope), scope) if keys(left) else _solve(right, evaluate(left, scope), scope)
        case Binary(op, left, right) if op in "+-*/" and (number := _number(value)) is not None:
            if bool(keys(left)) == bool(keys(right)):
                return NOTHING
            on_left = bool(keys(left))
            other = _number(evaluate(right if on_left else left, scope))
            back = None if other is None else _undo(op, number, other, on_left)
            return NOTHING if back is None else _solve(left if on_left else right, back, scope)
    return NOTHING


def _conditional(expr: Conditional, value: Any, scope: Scope) -> Solved:
    """The branch that a test without keys takes; else the test is solved for the branch that can be `value`."""
    test, yes, no = expr.test, expr.yes, expr.no
    if not keys(test):
        return _solve(yes if evaluate(test, scope) else no, value, scope)
    if not keys(yes):
        if same(evaluate(yes, scope), value):
            return _solve(test, True, scope)
        return {**_solve(test, False, scope), **_solve(no, value, scope)}
    if not keys(no) and same(evaluate(no, scope), value):
        return _solve(test, False, scope)
    if solved := _solve(yes, value, scope):
        return {**_solve(test, True, scope), **solved}
    return {**_solve(test, False, scope), **_solve(no, value, scope)}


def _number(value: Any) -> int | float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _undo(op: str, value: int | float, other: int | float, on_left: bool) -> int | float | None:
    """x, where `x op other` (or `other op x`, if x is not on the left) is `value`."""
    match op, on_left:
        case "+", _:
            return value - other
        case "-", True:
            return value + other
        case "-", False:
            return other - value
        case "/", True:
            return value * other
        case "/", False:
            return _exact(other, value)
    return _exact(value, other)


def _exact(a: int | float, b: int | float) -> int | float | None:
    if b == 0:
        return None
    return a // b if isinstance(a, int) and isinstance(b, int) and a % b == 0 else a / b
