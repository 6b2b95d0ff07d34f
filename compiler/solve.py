"""Scalar expressions backwards: which config keys make an expression come out as a given value."""

from __future__ import annotations

from ..dsl.tree import Binary, Call, Expr, Literal, Ref, Unary
from .reads import calls, refs
from .scope import Known, Scope, evaluate


def solve(expr: Expr, value: Known, scope: Scope) -> dict[str, Known]:
    """The config keys that make `expr` come out as `value`: the first key on the way is solved for.

    `scope` holds the axes and settings; a name that is not in it is a config key. Returns nothing where
    the expression fixes no key (a literal, or a test that says nothing about its key).
    """
    match expr:
        case Ref(name) if _is_key(name, scope):
            return {name: value}
        case Call("key", (Literal(str(name)),)):
            return {name: value}
        case Binary("??", left, _):
            return solve(left, value, scope)
        case Unary("not", operand):
            return solve(operand, not value, scope)
        case Unary("-", operand) if _number(value) is not None:
            return solve(operand, -_number(value), scope)  # type: ignore[operator]
        case Binary("==", left, right) if value is True and _holds_key(left, scope) and not _holds_key(right, scope):
            return solve(left, evaluate(right, scope), scope)
        case Binary(op, left, right) if op in "+-*/" and (number := _number(value)) is not None:
            if _holds_key(left, scope) == _holds_key(right, scope):
                return {}
            on_left = _holds_key(left, scope)
            other = _number(evaluate(right if on_left else left, scope))
            back = None if other is None else _undo(op, number, other, on_left)
            return {} if back is None else solve(left if on_left else right, back, scope)
    return {}


def _is_key(name: str, scope: Scope) -> bool:
    return name not in scope.names and name not in scope.lazy and name not in scope.words


def _holds_key(expr: Expr, scope: Scope) -> bool:
    return "key" in calls(expr) or any(_is_key(name, scope) for name in refs(expr))


def _number(value: Known) -> int | float | None:
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
