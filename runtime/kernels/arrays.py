"""Boxes as numpy sees them: views with strides, and blocks of at most so many elements."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from .boxes import LoopT, elements

Array: TypeAlias = NDArray[Any]


def view(items: Array, at: int, loops: tuple[LoopT, ...], side: int) -> Array:
    """The elements of a box from `at`; `side` is 1 for the strides of the source, 2 for those of the target."""
    size = items.itemsize
    return np.ndarray([loop[0] for loop in loops], items.dtype, items.data, at * size, [loop[side] * size for loop in loops])


def blocks(source_at: int, target_at: int, loops: tuple[LoopT, ...], most: int) -> list[tuple[int, int, tuple[LoopT, ...]]]:
    """A box cut along its outer loops into boxes of at most `most` elements: where each begins on both sides, and its loops."""
    count = elements(loops)
    if count <= most:
        return [(source_at, target_at, loops)]
    (extent, by_source, by_target), rest = loops[0], loops[1:]
    step = max(1, most // (count // extent))
    return [
        block
        for i in range(0, extent, step)
        for block in blocks(
            source_at + i * by_source, target_at + i * by_target, ((min(step, extent - i), by_source, by_target), *rest), most
        )
    ]
