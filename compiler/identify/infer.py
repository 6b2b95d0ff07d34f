"""Sizes that a config does not give, from what a checkpoint stores: its tensors' shapes and the numbers in its names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from functools import cache
from typing import Any, TypeAlias

from ...dsl.tree import AxisRef, Hole, Index, One, Pad, Ref, Rule, Slice, Sum
from ..link.flat import FlatLayout
from .match import Found, regex

Infer: TypeAlias = Callable[[str, Mapping[str, Any]], tuple[int, str] | None]
_Line: TypeAlias = tuple[Fraction, Fraction]  # a size as slope * axis + rest


def infer_from(layout: FlatLayout, found: Sequence[Found], ranks: Mapping[str, int]) -> Infer:
    """A function from an axis and the sizes that are known to the axis' size and where it comes from, or None.

    `ranks` are the degrees that the files show. Only dimensions are solved that say outright how long they are:
    products, sums and slices of axes. Of a `let` the one without a guard counts. Padding counts as if it were not
    there, for a checkpoint does not tell it apart.
    """
    lets = {item.name: item.value for item in layout.lets if item.when is None}

    @cache
    def stored() -> list[tuple[Rule, list[tuple[Found, dict[str, int]]]]]:
        names: dict[str, Found] = {}
        for item in found:
            names.setdefault(item.name, item)
        return [(rule, hits) for rule in (flat.rule for flat in layout.rules) if (hits := list(_hits(rule, names)))]

    def infer(axis: str, known: Mapping[str, Any]) -> tuple[int, str] | None:
        numbered = [
            (number[axis], item.name) for rule, hits in stored()
            if any(isinstance(p, Hole) and p.axis == axis and p.rank is None and p.offset is None for p in rule.names[0].parts)
            for item, number in hits
        ]  # fmt: skip
        if numbered:
            last, name = max(numbered)
            return 1 + last, f"the names of tensors such as `{name}`"
        for rule, hits in stored():
            first = hits[0][0]
            dims = rule.view or rule.dims
            if len(first.shape) != len(dims):
                continue
            for dim, extent in zip(dims, first.shape, strict=True):
                line = _line(dim, axis, known, ranks, lets)
                if line is not None and line[0]:
                    size = (extent - line[1]) / line[0]
                    if size.denominator == 1 and size > 0:
                        return int(size), f"the shape of `{first.name}`"
        return None

    return infer


def padded_to(layout: FlatLayout, found: Sequence[Found], ranks: Mapping[str, int]) -> dict[str, int]:
    """Parameters that say how long a dimension is filled up to (`pad(vocab, to padded_vocab)`), as shapes show it."""
    lets = {item.name: item.value.amount.name for item in layout.lets if isinstance(item.value, Pad) and item.value.exact and isinstance(item.value.amount, Ref)}
    params = {p.name for p in layout.params}
    names: dict[str, Found] = {}
    for item in found:
        names.setdefault(item.name, item)
    out: dict[str, int] = {}
    for rule in (flat.rule for flat in layout.rules) if lets else ():
        for place, dim in enumerate(rule.view or rule.dims):
            inner, count = (dim.operand, ranks.get(dim.rank, 1)) if isinstance(dim, Slice) else (dim, 1)
            param = lets.get(inner.name, "") if isinstance(inner, AxisRef) else ""
            hit = next(_hits(rule, names), None) if param in params - out.keys() else None
            if hit is not None and len(hit[0].shape) == len(rule.view or rule.dims):
                out[param] = hit[0].shape[place] * count
    return out


def _hits(rule: Rule, names: Mapping[str, Found]) -> Iterator[tuple[Found, dict[str, int]]]:
    """The tensors that a rule spells, each with the numbers in its name."""
    patterns = [regex(pattern) for pattern in rule.names]
    for name, item in names.items():
        hit = next((h for p in patterns if (h := p.fullmatch(name))), None)
        if hit:
            yield item, {axis: int(number) for axis, number in hit.groupdict().items()}


def _line(
    index: Index, axis: str, known: Mapping[str, Any], ranks: Mapping[str, int], lets: Mapping[str, Index]
) -> _Line | None:
    """The length of a dimension as a line over the axis; None where it is none, or another size is missing."""
    match index:
        case One():
            return Fraction(0), Fraction(1)
        case AxisRef(name) if name == axis:
            return Fraction(1), Fraction(0)
        case AxisRef(name) if type(known.get(name)) is int:
            return Fraction(0), Fraction(known[name])
        case AxisRef(name) if name in lets:
            return _line(lets[name], axis, known, ranks, {k: v for k, v in lets.items() if k != name})
        case Pad(operand, _, False):  # a multiple, which padding leaves as it is
            return _line(operand, axis, known, ranks, lets)
        case Slice(operand, rank):
            line = _line(operand, axis, known, ranks, lets)
            return None if line is None or rank not in ranks else (line[0] / ranks[rank], line[1] / ranks[rank])
        case Sum(terms):
            slope = rest = Fraction(0)
            for term in terms:
                product: _Line = (Fraction(0), Fraction(1))
                for factor in term.factors:
                    line = _line(factor, axis, known, ranks, lets)
                    if line is None or (line[0] and product[0]):
                        return None
                    product = (line[0] * product[1] + line[1] * product[0], line[1] * product[1])
                slope, rest = slope + product[0], rest + product[1]
            return slope, rest
    return None
