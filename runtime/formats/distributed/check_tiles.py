"""Blocks of a tensor in, faults out where they do not cover it, each element once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from math import prod

from ...fault import Fault


@dataclass(frozen=True)
class Block:
    """Where a part of a tensor begins in it, and its shape."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


def check_cover(name: str, shape: tuple[int, ...], blocks: Sequence[Block], file: str) -> None:
    """The blocks lie within the tensor `name` of `file`, do not overlap, and hold as many elements."""
    for block in blocks:
        inside = all(at + n <= extent for at, n, extent in zip(block.offsets, block.sizes, shape, strict=False))
        if not len(block.offsets) == len(block.sizes) == len(shape) or not inside:
            raise Fault("bad-metadata", f"`{file}` has a part of `{name}` that does not lie within its shape {list(shape)}")
    held = sum(prod(block.sizes) for block in blocks)
    help = "copy or save the checkpoint again: a rank's part is missing or there twice"
    if held != prod(shape):
        raise Fault("incomplete-tensor", f"the parts of `{name}` in `{file}` hold {held:,} elements, its shape {list(shape)} has {prod(shape):,}", help=help)
    met = _meeting([block for block in blocks if prod(block.sizes)], 0)
    if met:
        places = " and ".join(f"{list(block.sizes)} at {list(block.offsets)}" for block in met[:2])
        raise Fault("incomplete-tensor", f"two parts of `{name}` in `{file}` overlap: {places}", help=help)


def _meeting(blocks: Sequence[Block], axis: int) -> Sequence[Block]:
    """Blocks that overlap, or none. All of `blocks` have an index in common along each axis before `axis`."""
    if len(blocks) < 2:
        return ()
    if axis == len(blocks[0].sizes):
        return blocks
    ordered = sorted(blocks, key=lambda block: block.offsets[axis])
    there: list[Block] = []
    for at, begun in groupby(ordered, key=lambda block: block.offsets[axis]):
        there = [block for block in there if block.offsets[axis] + block.sizes[axis] > at] + list(begun)
        met = _meeting(there, axis + 1)
        if met:
            return met
    return ()
