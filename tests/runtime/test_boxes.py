"""Boxes stay the same copies, however they are cut."""

from __future__ import annotations

import itertools
import math
import zlib
from collections import Counter
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptc.runtime.files.crc import combine
from ckptc.runtime.kernels.boxes import BoxT, clip, join, narrow, onto_strides, source_span
from ckptc.runtime.plan.expand import families
from ckptc.runtime.plan.plan import Box, Stored

from .reference_plan import coords


def visits(box: BoxT) -> Counter[tuple[int, int]]:
    source, target, loops = box
    return Counter(
        (source + sum(i * loop[1] for i, loop in zip(turn, loops, strict=True)),
         target + sum(i * loop[2] for i, loop in zip(turn, loops, strict=True)))
        for turn in itertools.product(*(range(loop[0]) for loop in loops))
    )  # fmt: skip


def total(boxes: list[BoxT]) -> Counter[tuple[int, int]]:
    return sum((visits(box) for box in boxes), Counter())


@st.composite
def boxes(draw: Any) -> tuple[BoxT, tuple[int, ...]]:
    """A box of a row-major source of the shape that is returned; target strides nest."""
    shape = tuple(draw(st.lists(st.integers(1, 6), min_size=1, max_size=3)))
    sizes = [math.prod(shape[k + 1 :]) for k in range(len(shape))]
    loops, source = [], 0
    run = 1
    for k in draw(st.permutations(range(len(shape)))):
        first = draw(st.integers(0, shape[k] - 1))
        extent = draw(st.integers(1, shape[k] - first))
        source += first * sizes[k]
        if extent > 1:
            loops.insert(0, (extent, sizes[k], run))
            run = run * extent + draw(st.integers(0, 3))
    return (source, draw(st.integers(0, 5)), tuple(loops)), shape


@settings(max_examples=300, deadline=None)
@given(boxes(), st.integers(0, 60), st.integers(0, 60), st.integers(1, 20))
def test_cutting_keeps_the_copies(drawn: tuple[BoxT, tuple[int, ...]], low: int, extent: int, limit: int) -> None:
    box, _ = drawn
    every = visits(box)
    assert total(clip(box, low, low + extent)) == Counter({v: 1 for v in every if low <= v[1] < low + extent})
    narrowed = narrow(box, limit)
    assert total(narrowed) == every
    assert all(source_span(loops) <= limit for _, _, loops in narrowed)
    assert visits((box[0], box[1], join(box[2]))) == every


@settings(max_examples=300, deadline=None)
@given(boxes(), st.data())
def test_a_window_with_its_own_strides_gives_the_same_elements(drawn: tuple[BoxT, tuple[int, ...]], data: Any) -> None:
    (source, target, loops), shape = drawn
    box = (source, target, join(tuple(sorted(loops, key=lambda loop: -loop[1]))))
    order = data.draw(st.permutations(range(len(shape))))
    storage = np.arange(math.prod(shape)).reshape([shape[k] for k in order]).transpose(np.argsort(order))
    strides = tuple(stride // storage.itemsize for stride in storage.strides)
    flat = storage.reshape(-1)
    moved = total(onto_strides(box, shape, strides))
    assert moved == Counter((int(flat[s]), t) for s, t in visits(box).elements())


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_checksums_of_parts_join(first: bytes, second: bytes) -> None:
    assert combine(zlib.crc32(first), zlib.crc32(second), len(second)) == zlib.crc32(first + second)


def test_checksums_of_large_parts_join() -> None:
    data = bytes(range(256)) * 40_000
    assert combine(zlib.crc32(data), zlib.crc32(data), len(data)) == zlib.crc32(data + data)


def test_families_find_their_rows() -> None:
    stored = Stored("a{x}", "b{y:02}", ("x", "y"), (Box((1, 2), ((3, (2, 0)), (2, (0, 5)))), Box((0, 0))), (1,))
    (family,) = families((stored,))
    assert [tuple(row) for row in family.rows.tolist()] == list(coords(stored))
    assert family.find(family.rows).tolist() == list(range(7))
    assert family.find(family.rows + 1).tolist() == [-1] * 7
    assert family.spell(stored.file)[1] == "b07"
