"""Guards in, their two halves out: what settings and parameters decide, and what is about single indices of an axis."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from ...dsl.tree import Binary, Expr, Span, Unary
from ..values.walk_expr import refs


def both(a: Expr | None, b: Expr | None) -> Expr | None:
    """The guard that holds where both do."""
    return a if b is None else b if a is None else Binary("and", a, b, b.span)


def negated(guard: Expr, span: Span) -> Expr:
    return Unary("not", guard, span)


def halves(guard: Expr | None, indexed: Collection[str]) -> tuple[Expr | None, Expr | None]:
    """The guard's terms without settings that each index has (`indexed`), and those with one."""
    plain: Expr | None = None
    picking: Expr | None = None
    for term in _terms(guard):
        if any(name in indexed for name in refs(term)):
            picking = both(picking, term)
        else:
            plain = both(plain, term)
    return plain, picking


def _terms(guard: Expr | None) -> Iterator[Expr]:
    if isinstance(guard, Binary) and guard.op == "and":
        yield from _terms(guard.left)
        yield from _terms(guard.right)
    elif guard is not None:
        yield guard
