"""Conditions on indices in, the indices of an axis that they pick out: layers that have experts, and those that have none."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any, TypeAlias

from ...dsl.diagnostic import Diagnostic, Label, MappingError, fault
from ...dsl.tree import Expr, Ref, Select, Span, TensorDecl
from .scope import Scope, evaluate, misplaced_keys, shown
from .walk_expr import refs

Picked: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]  # an axis and its indices, in order; empty: all there are
MOST = 2**16  # indices that are asked about one by one


def faults_of(where: Expr, selects: Mapping[str, Select], span: Span) -> Iterator[Diagnostic]:
    """What is wrong with a condition on indices, whatever the sizes are: it asks for indices of one axis, by settings that
    each index of that axis has. Any other axis is its size."""
    axes = axes_of(where, selects)
    if len(axes) > 1:
        title = f"this asks for indices of {' and of '.join(f'`{axis}`' for axis in sorted(axes))} at once"
        yield Diagnostic("where-axis", title, (Label(span),), help="ask for those of one axis")
    for name in dict.fromkeys(name for name in refs(where) if name in axes):
        title = f"`{name}` is the size of the axis here, beside settings that each index of it has"
        yield Diagnostic("index-and-size", title, (Label(span),), help=f"for a condition on the index, give it a name in `settings`: some[{name}] = {name} ...")
    for each in (where, *(selects[name].value for name in named(where, selects) if name in selects)):
        yield from misplaced_keys(each)


def foreign_indices(tensor: TensorDecl, selects: Mapping[str, Select]) -> Iterator[Diagnostic]:
    """The fault of a model tensor that exists at some indices of an axis which it has not."""
    for axis in sorted(axes_of(tensor.where, selects) - {each.name for each in tensor.axes} if tensor.where is not None else ()):
        title = f"`{tensor.name}` exists at some indices of `{axis}`, and has no such axis"
        yield Diagnostic("foreign-index", title, (Label(tensor.span),), help="give it the axis, or ask for indices of one that it has")


def check_where(where: Expr, selects: Mapping[str, Select], span: Span) -> None:
    """Raises `MappingError` for all that is wrong with a condition on indices."""
    if faults := tuple(faults_of(where, selects, span)):
        raise MappingError(*faults)


def axes_of(where: Expr, selects: Mapping[str, Select]) -> set[str]:
    """The axes whose indices a condition asks for: those of the settings in it that each index has."""
    return {selects[name].axis for name in named(where, selects) if name in selects}


def named(where: Expr, selects: Mapping[str, Select]) -> list[str]:
    """What a condition names, settings that each index has followed."""
    out: list[str] = []
    todo = refs(where)
    while todo:
        name = todo.pop(0)
        if name not in out:
            out.append(name)
            todo += refs(selects[name].value) if name in selects else []
    return out


def pick(where: Expr | None, sizes: Mapping[str, Any], selects: Mapping[str, Select], scope: Scope, span: Span) -> Picked:
    """The indices at which a condition holds. `sizes` tells how many the axis has, `scope` all that is named besides."""
    if where is None:
        return ()
    check_where(where, selects, span)
    (axis,) = axes_of(where, selects)
    size = sizes.get(axis)
    used = [name for name in named(where, selects) if name != axis and name not in selects]
    known = tuple((name, _plain(name, scope.lookup(Ref(name, span)), span)) for name in used)
    said = (where, axis, known, tuple(selects.values()), scope.words - {axis})
    always = _whatever_the_index(*said)
    if always is not None:
        return () if always else ((axis, ()),)
    if type(size) is not int or size > MOST:
        raise fault("where-size", f"axis `{axis}` is {size}, of which no indices can be picked", span, help=f"axes of up to {MOST} indices can be")
    indices = _picked(size, *said)
    return () if len(indices) == size else ((axis, indices),)


def _plain(name: str, value: Any, span: Span) -> Any:
    """A value that does not change, and so can be remembered: a single one, or several."""
    several = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if not all(isinstance(each, bool | int | float | str | None) for each in several):
        raise fault("where-value", f"`{name}` is {shown(value)}, and indices are picked by single values or a list of them", span, help=f"give `{name}` one value")
    return several if isinstance(value, (list, tuple)) else value


def both(a: Picked, b: Picked, span: Span) -> Picked:
    """What both pick."""
    if not a or not b:
        return a or b
    if a[0][0] != b[0][0]:
        raise fault("where-axis", f"indices of `{a[0][0]}` and of `{b[0][0]}` are picked at once", span, help="a tensor and its rules pick those of one axis")
    kept = set(b[0][1])
    return ((a[0][0], tuple(i for i in a[0][1] if i in kept)),)


def empty(picked: Picked) -> bool:
    return any(not indices for _, indices in picked)


def runs(indices: Iterable[int]) -> list[tuple[int, int, int]]:
    """Increasing indices as (first, count, step): neighbours together, or all if they are evenly spread."""
    numbers = list(indices)
    steps = {b - a for a, b in pairwise(numbers)}
    if len(steps) == 1:
        return [(numbers[0], len(numbers), steps.pop())]
    out: list[tuple[int, int, int]] = []
    for n in numbers:
        if out and n == out[-1][0] + out[-1][1]:
            out[-1] = (out[-1][0], out[-1][1] + 1, 1)
        else:
            out.append((n, 1, 1))
    return out


_Known: TypeAlias = tuple[tuple[str, Any], ...]


@lru_cache(maxsize=4096)
def _whatever_the_index(where: Expr, axis: str, known: _Known, selects: tuple[Select, ...], words: frozenset[str]) -> bool | None:
    """What settings alone make of it, as where there are no experts; None if the index decides."""
    try:
        return bool(evaluate(where, Scope(dict(known), {s.name: s.value for s in selects}, words=words, index=axis)))
    except MappingError:
        return None


@lru_cache(maxsize=4096)
def _picked(size: int, where: Expr, axis: str, known: _Known, selects: tuple[Select, ...], words: frozenset[str]) -> tuple[int, ...]:
    def holds(index: int) -> bool:
        return bool(evaluate(where, Scope(dict(known) | {axis: index}, {s.name: s.value for s in selects}, words=words)))

    return tuple(i for i in range(size) if holds(i))
