"""What stands in square brackets in, as `tensor[3, 2:5]`; the block of elements that it needs, and what to take of that, out."""

from __future__ import annotations

from typing import Any

from ..fault import Fault

Extents = tuple[int, ...]


def block_at(index: Any, shape: Extents, name: str) -> tuple[Extents, Extents, tuple[int | slice, ...]]:
    """Where the block begins, its shape, and the index within it: 0 where an axis was given a number and is gone, else a slice.

    Numbers, slices with steps from 1, and `...` are understood, and mean what they mean to torch. Raises `Fault`, an `IndexError`.
    """
    given = index if isinstance(index, tuple) else (index,)
    if given.count(...) > 1 or len(given) - given.count(...) > len(shape):
        raise _fault(name, shape, f"{len(given)} indices are too many")
    if ... in given:
        at = given.index(...)
        given = (*given[:at], *[slice(None)] * (len(shape) - len(given) + 1), *given[at + 1 :])
    given = (*given, *[slice(None)] * (len(shape) - len(given)))
    first, extents, within = [], [], list[int | slice]()
    for each, extent in zip(given, shape, strict=True):
        if isinstance(each, slice):
            start, stop, step = each.indices(extent)
            if step < 1:
                raise _fault(name, shape, f"a step of {step} is not from 1")
            first.append(start)
            extents.append(max(stop - start, 0))
            within.append(slice(None, None, step))
            continue
        if not hasattr(each, "__index__") or isinstance(each, bool):
            raise _fault(name, shape, f"`{each!r}` is neither a number nor a slice")
        number = each.__index__()
        if not -extent <= number < extent:
            raise _fault(name, shape, f"{number} is outside an axis of {extent}")
        first.append(number % extent)
        extents.append(1)
        within.append(0)
    return tuple(first), tuple(extents), tuple(within)


def _fault(name: str, shape: Extents, why: str) -> Fault:
    return Fault("no-such-index", f"`{name}` has the shape {list(shape)}: {why}")
