"""Guards in, their two halves out: what settings and parameters decide, and what is about single indices of an axis."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ...dsl.tree import Binary, Expr, Span, Unary
from ..values.walk_expr import refs
from .limits import MOST_CONDITIONS, check_size


def both(a: Expr | None, b: Expr | None) -> Expr | None:
    """The guard that holds where both do."""
    return a if b is None else b if a is None else Binary("and", a, b, b.span)


def negated(guard: Expr, span: Span) -> Expr:
    return Unary("not", guard, span)


def halves(guard: Expr | None, indexed: Collection[str]) -> tuple[Expr | None, Expr | None]:
    """The guard's terms without settings that each index has (`indexed`), and those with one. Raises `MappingError` where it
    has too many terms, before anything follows them."""
    if guard is not None:
        check_size(_number(guard), MOST_CONDITIONS, "this is under", "conditions", guard.span)
    plain: Expr | None = None
    picking: Expr | None = None
    for term in _terms(guard):
        if any(name in indexed for name in refs(term)):
            picking = both(picking, term)
        else:
            plain = both(plain, term)
    return plain, picking


def _number(guard: Expr) -> int:
    """How many terms it has, counted no further than one beyond the limit."""
    todo = [guard]
    number = 1
    while todo and number <= MOST_CONDITIONS:
        each = todo.pop()
        if isinstance(each, Binary) and each.op == "and":
            todo += each.left, each.right
            number += 1
    return number


def _terms(guard: Expr | None) -> Iterator[Expr]:
    if isinstance(guard, Binary) and guard.op == "and":
        yield from _terms(guard.left)
        yield from _terms(guard.right)
    elif guard is not None:
        yield guard
