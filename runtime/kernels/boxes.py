"""Boxes of elements: clipped to an interval, split, joined, and moved onto a window's own strides.

A box is `(source, target, loops)`: first elements on both sides and loops `(extent, source stride, target
stride)`, outermost first. All functions are exact: the copies they return are those they were given."""

from __future__ import annotations

from typing import TypeAlias

from ..files.window import row_major

LoopT: TypeAlias = tuple[int, int, int]
BoxT: TypeAlias = tuple[int, int, tuple[LoopT, ...]]


def elements(loops: tuple[LoopT, ...]) -> int:
    """How many elements the loops visit."""
    count = 1
    for extent, _, _ in loops:
        count *= extent
    return count


def source_span(loops: tuple[LoopT, ...]) -> int:
    """From the first source element to one past the last (strides are never negative)."""
    return 1 + sum((extent - 1) * source for extent, source, _ in loops)


def target_span(loops: tuple[LoopT, ...]) -> int:
    """From the first target element to one past the last."""
    return 1 + sum((extent - 1) * target for extent, _, target in loops)


def join(loops: tuple[LoopT, ...]) -> tuple[LoopT, ...]:
    """Drops loops of one turn and joins neighbours that are one run on both sides."""
    joined: list[LoopT] = []
    for extent, source, target in loops:
        if extent == 1:
            continue
        if joined and joined[-1][1] == extent * source and joined[-1][2] == extent * target:
            joined[-1] = (joined[-1][0] * extent, source, target)
        else:
            joined.append((extent, source, target))
    return tuple(joined)


def clip(box: BoxT, low: int, high: int) -> list[BoxT]:
    """The part of `box` whose target elements lie in [low, high).

    Per loop: a head that is cut, a whole middle, a tail that is cut. An index i of the outermost loop
    covers [target + i * stride, ... + inner); it is whole, cut, or outside. Where strides nest (each at
    least as large as what is inside it, as in any row-major tensor) at most two indices are cut.
    """
    out: list[BoxT] = []
    _clip(box, low, high, out)
    return out


def _clip(box: BoxT, low: int, high: int, out: list[BoxT]) -> None:
    source, target, loops = box
    span = target_span(loops)
    if target >= high or target + span <= low:
        return
    if target >= low and target + span <= high:
        out.append(box)
        return
    (extent, by_source, by_target), rest = loops[0], loops[1:]
    inner = span - (extent - 1) * by_target
    begin = max(0, -((target - low) // by_target))
    end = min(extent, (high - inner - target) // by_target + 1)
    first = max(0, (low - target - inner) // by_target + 1)
    last = min(extent, -((target - high) // by_target))
    if end <= begin:
        begin = end = last
    for i in range(first, begin):
        _clip((source + i * by_source, target + i * by_target, rest), low, high, out)
    if begin < end:
        kept = rest if end - begin == 1 else ((end - begin, by_source, by_target), *rest)
        out.append((source + begin * by_source, target + begin * by_target, kept))
    for i in range(end, last):
        _clip((source + i * by_source, target + i * by_target, rest), low, high, out)


def widest(loops: tuple[LoopT, ...]) -> int:
    """The number of the loop that goes farthest in the source."""
    return max(range(len(loops)), key=lambda k: (loops[k][1] * (loops[k][0] - 1), loops[k][1]))


def narrow(box: BoxT, limit: int) -> list[BoxT]:
    """`box` cut along its widest source loops into boxes that span at most `limit` source elements."""
    source, target, loops = box
    span = source_span(loops)
    if span <= limit:
        return [box]
    k = max((k for k in range(len(loops)) if loops[k][1]), key=lambda k: loops[k][1])
    extent, by_source, by_target = loops[k]
    inner = span - (extent - 1) * by_source
    step = max(1, (limit - inner) // by_source + 1)
    out: list[BoxT] = []
    for i in range(0, extent, step):
        n = min(step, extent - i)
        kept = loops[:k] + (((n, by_source, by_target),) if n > 1 else ()) + loops[k + 1 :]
        out += narrow((source + i * by_source, target + i * by_target, kept), limit)
    return out


def onto_strides(box: BoxT, shape: tuple[int, ...], strides: tuple[int, ...]) -> list[BoxT]:
    """`box`, whose source side indexes the row-major tensor of `shape`, for a window with `strides`.

    A loop moves along one dimension, or over several whole ones and is then split at their boundaries;
    a loop that does neither is written out turn by turn.
    """
    source, target, loops = box
    sizes = row_major(shape)
    if strides == sizes:
        return [box]
    place = [source // size % extent for size, extent in zip(sizes, shape, strict=True)]
    reach = list(place)
    moved: list[LoopT] = []
    todo = list(reversed(loops))
    while todo:
        extent, by_source, by_target = todo.pop()
        if extent == 1:
            continue
        if by_source == 0:
            moved.append((extent, 0, by_target))
            continue
        dim = next(d for d in range(len(shape)) if sizes[d] <= by_source)
        turns, uneven = divmod(by_source, sizes[dim])
        if not uneven and reach[dim] + (extent - 1) * turns < shape[dim]:
            reach[dim] += (extent - 1) * turns
            moved.append((extent, turns * strides[dim], by_target))
            continue
        whole = shape[dim] // turns if not uneven and shape[dim] % turns == 0 else 0
        if whole > 1 and extent % whole == 0 and extent > whole and place[dim] < turns:
            todo += [(whole, by_source, by_target), (extent // whole, by_source * whole, by_target * whole)]
            continue
        at = loops.index((extent, by_source, by_target)) if (extent, by_source, by_target) in loops else 0
        extent, by_source, by_target = loops[at]
        rest = loops[:at] + loops[at + 1 :]
        return [
            piece
            for i in range(extent)
            for piece in onto_strides((source + i * by_source, target + i * by_target, rest), shape, strides)
        ]
    at = sum(index * stride for index, stride in zip(place, strides, strict=True))
    return [(at, target, tuple(moved))]
