"""Named index expressions: which names an expression mentions, and that none is defined by itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ...dsl.diagnostic import fault
from ...dsl.tree import AxisRef, Index, Let, Pad, Span, Term
from ...dsl.walk import walk

_DEEPEST, _LONGEST = 40, 4096  # lets inside lets; axes, when all are written out


def mentions(index: Index) -> Iterator[AxisRef]:
    """Every axis, part or `let` that an expression names, lets not followed."""
    return (node for node in walk(index) if isinstance(node, AxisRef))


def fills(index: Index) -> Iterator[str]:
    """How the pads of an expression are filled, as they are written, lets not followed."""
    return (node.fill for node in walk(index) if isinstance(node, Pad))


def labels(dims: Iterable[Index], named: Iterable[Let]) -> dict[str, Span]:
    """The labels in these dimensions and in the lets that they name, each with a place where it stands."""
    lets: dict[str, list[Index]] = {}
    for item in named:
        lets.setdefault(item.name, []).append(item.value)
    found: dict[str, Span] = {}
    seen: set[str] = set()

    todo = [walk(dim) for dim in dims][::-1]
    while todo:
        node = next(todo[-1], None)
        if node is None:
            todo.pop()
        elif isinstance(node, AxisRef) and node.name in lets and node.name not in seen:
            seen.add(node.name)
            todo += [walk(value) for value in reversed(lets[node.name])]
        elif isinstance(node, Term) and node.label:
            found.setdefault(node.label, node.span)
    return found


def check_lets(lets: Mapping[str, Index]) -> None:
    """Every `let` ends at axes, and through few enough others to be written out."""
    known: dict[str, tuple[int, int]] = {}  # how deep, and how many names when written out

    def measure(name: str, within: tuple[str, ...]) -> tuple[int, int]:
        if name in known:
            return known[name]
        depth = size = 0
        for ref in mentions(lets[name]):
            if ref.name in (*within, name):
                raise fault("circular-let", f"`let {ref.name}` is defined by itself", ref.span, help="define it from axes")
            deep = len(within) + 1 > _DEEPEST
            below = measure(ref.name, (*within, name)) if ref.name in lets and not deep else (0, 1)
            depth, size = max(depth, below[0] + 1), size + below[1]
            if deep or depth > _DEEPEST or size > _LONGEST:
                what = f"more than {_DEEPEST} deep" if deep or depth > _DEEPEST else f"more than {_LONGEST} names long"
                first = (*within, name)[0] if deep else name
                raise fault("long-let", f"`let {first}` is {what} when written out", ref.span, help="say it with fewer")
        known[name] = depth, size
        return known[name]

    for name in lets:
        measure(name, ())
