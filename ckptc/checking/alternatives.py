"""A layout as it was read in; the same with another value of one parameter, under which names and shapes are as found, out."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from ..compiler.link.flat import Family
from ..compiler.settle.resolve import Side, resolve
from ..compiler.settle.sizes import Scalar, Sizes
from ..dsl.diagnostic import MappingError
from ..dsl.tree import Param
from .sides import Read, as_target, read

MOST_DEGREE = 256


def alternatives(own: Read, family: Family, sizes: Sizes, source: Side | None = None) -> Iterator[tuple[str, Read]]:
    """Each other value of a parameter, as name=value, and the checkpoint read with it. `source`: the side that `own` is the
    target of, if it is one."""
    side = own.side
    lost, spare, misshapen = (len(x) for x in (own.located.lost, own.located.spare, own.located.misshapen))
    for param in family.layout(side.layout).params:
        for value in () if param.rank else _others(param, side):
            try:
                stages = side.stages.whole if side.stages is not None else None
                other = resolve(
                    family, side.layout, sizes, {**side.ranks, **side.params, param.name: value}, stages=stages, format=side.format, required=False,
                )  # fmt: skip
                if source is not None:
                    other = as_target(family, other, source, sizes)
                found = read(own.checkpoint, other)
            except MappingError:
                continue
            now = found.located
            if len(now.lost) <= lost and len(now.spare) <= spare and len(now.misshapen) <= misshapen:
                yield f"{param.name}={str(value).lower() if isinstance(value, bool) else value}", found


def _others(param: Param, side: Side) -> list[Scalar]:
    now = side.params[param.name]
    if param.choices:
        return [choice for choice in param.choices if choice != now]
    if isinstance(now, bool):
        return [not now]
    if isinstance(now, int):
        degree = prod(side.ranks.values())
        found: dict[Scalar, None] = dict.fromkeys(d for d in range(1, min(degree, MOST_DEGREE) + 1) if degree % d == 0 and d != now)
        return [*found, *(n for n in (0, 1) if n not in found and n != now)]
    return []
