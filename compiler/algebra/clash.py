"""Lowered rules in; the names that two of them claim in one file out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from ...dsl.diagnostic import Diagnostic, Label
from ...dsl.tree import Span
from ...runtime.plan.plan import Box
from .digits import Vector
from .lower import Lowered


def coordinates(boxes: Iterable[Box]) -> list[Vector]:
    out: list[Vector] = []
    for box in boxes:
        points = [box.first]
        for extent, move in box.loops:
            points = [tuple(a + i * b for a, b in zip(p, move, strict=True)) for p in points for i in range(extent)]
        out += points
    return out


def clashes(lowered: tuple[Lowered, ...]) -> list[Diagnostic]:
    """Two rules may not give one name in one file. Names that no other rule can spell need no listing."""
    shapes: dict[str, list[Lowered]] = defaultdict(list)
    for item in lowered:
        shapes[_skeleton(item.stored.name, item.stored.coords)].append(item)
    faults: list[Diagnostic] = []
    for items in shapes.values():
        if len({i.rule.rule.span for i in items}) < 2:
            continue
        seen: dict[tuple[str, str], Span] = {}
        for item in items:
            span = item.rule.rule.span
            for point in coordinates(item.stored.boxes):
                at = dict(zip(item.stored.coords, point, strict=True))
                key = (item.stored.file.format(**at), item.stored.name.format(**at))
                if seen.setdefault(key, span) != span:
                    labels = (Label(span, "claimed here"), Label(seen[key], "and here"))
                    faults.append(Diagnostic("name-clash", f"two rules store `{key[1]}`", labels, help="keep one, or guard them with `when`"))
                    break
    return faults


def _skeleton(name: str, coords: tuple[str, ...]) -> str:
    """The name with every number, spelled or to be spelled, as one mark: equal names have equal skeletons."""
    text = name.format(**dict.fromkeys(coords, 0))
    out: list[str] = []
    for char in text:
        if char.isdigit():
            if not out or out[-1] != "#":
                out.append("#")
        else:
            out.append(char)
    return "".join(out)
