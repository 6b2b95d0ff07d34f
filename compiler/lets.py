"""Named index expressions: which names an expression mentions, and that none is defined by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ..dsl.tree import AxisRef, Index, Pad, Slice, Sum
from .scope import fault

_DEEPEST = 40  # lets inside lets


def mentions(index: Index) -> Iterator[AxisRef]:
    """Every axis, part or `let` that an expression names, lets not followed."""
    match index:
        case AxisRef():
            yield index
        case Slice(operand) | Pad(operand):
            yield from mentions(operand)
        case Sum(terms):
            for term in terms:
                for factor in term.factors:
                    yield from mentions(factor)


def check_lets(lets: Mapping[str, Index]) -> None:
    """Every `let` ends at axes, and through few enough others to be written out."""
    depths: dict[str, int] = {}

    def depth(name: str, within: tuple[str, ...]) -> int:
        if name not in depths:
            inner = 0
            for ref in mentions(lets[name]):
                if ref.name not in lets:
                    continue
                if ref.name in (*within, name):
                    raise fault("circular-let", f"`let {ref.name}` is defined by itself", ref.span, help="define it from axes")
                if len(within) > _DEEPEST:
                    raise fault("deep-let", f"`let {ref.name}` stands in more than {_DEEPEST} others", ref.span, help="define fewer")
                inner = max(inner, depth(ref.name, (*within, name)))
            depths[name] = 1 + inner
        return depths[name]

    for name in lets:
        depth(name, ())
