"""A guard and what is known in, what is left of the guard out: whether it holds for certain, or the terms that are open."""

from __future__ import annotations

from ...dsl.diagnostic import MappingError
from ...dsl.tree import Binary, Expr, Unary
from .scope import Scope, evaluate


def settled(guard: Expr | None, scope: Scope) -> bool | Expr:
    """True or False where the scope decides it, else what is left of it."""
    match guard:
        case None:
            return True
        case Binary("and" | "or" as op, left, right):
            one, other = settled(left, scope), settled(right, scope)
            dull = op == "and"
            if (not dull) in (one, other):
                return not dull
            left_over = [x for x in (one, other) if not isinstance(x, bool)]
            return dull if not left_over else left_over[0] if len(left_over) == 1 else Binary(op, left_over[0], left_over[1])
        case Unary("not", operand):
            inner = settled(operand, scope)
            if isinstance(inner, Unary) and inner.op == "not":
                return inner.operand
            return not inner if isinstance(inner, bool) else Unary("not", inner)
    try:
        return bool(evaluate(guard, scope))
    except MappingError:
        return guard
