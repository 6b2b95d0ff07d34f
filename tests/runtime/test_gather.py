"""Tensors that lie in tiles, against numpy: any tiling, any range, through one read, a torch tensor and the engine."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from ckptc.runtime.engine.fill import Sources
from ckptc.runtime.files.gather import Gather, place_of_range
from ckptc.runtime.files.read_window import read_window
from ckptc.runtime.files.window import Tile, Window, at_index, tiled

from .tiles import laid_out

SHAPES = [(7,), (5, 3), (4, 6, 5), (3, 1, 7, 2), (2, 5, 1, 3, 4), (1, 9)]


@pytest.mark.parametrize("margin", [0, 2])
@pytest.mark.parametrize("shape", SHAPES)
def test_any_range_of_any_tiling_is_read(tmp_path: Path, shape: tuple[int, ...], margin: int) -> None:
    rng, tiled_ones = random.Random(f"{shape}{margin}"), 0
    for turn in range(12):
        folder = tmp_path / str(turn)
        folder.mkdir()
        values = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
        window = laid_out(folder, values, rng, margin)
        assert np.array_equal(read_window(window).numpy(), values)
        sources = Sources()
        tiled_ones += bool(window.tiles)
        for _ in range(8 if window.tiles else 0):
            first = rng.randrange(values.size)
            count = rng.randint(1, values.size - first)
            into = memoryview(bytearray(count * 4))
            Gather(window, rng.choice([1, 30, 1 << 20])).read(sources.read, into, first * 4)
            assert np.array_equal(np.frombuffer(into, np.int32), values.ravel()[first : first + count])
            place, at = place_of_range(window, first, count)
            again = memoryview(bytearray(count * 4))
            sources.read(place, again, at)
            assert again == into
        sources.close()
    assert tiled_ones >= 6


def test_a_part_of_a_tiled_tensor_is_tiled_itself(tmp_path: Path) -> None:
    rng = random.Random(4)
    values = np.arange(3 * 4 * 5 * 7, dtype=np.int32).reshape(3, 4, 5, 7)
    window = laid_out(tmp_path, values, rng, 1)
    for i in range(3):
        assert np.array_equal(read_window(at_index(window, (i,))).numpy(), values[i])
        for j in range(4):
            assert np.array_equal(read_window(at_index(window, (i, j))).numpy(), values[i, j])


def test_a_range_within_a_row_is_read_from_its_file(tmp_path: Path) -> None:
    values = np.arange(40, dtype=np.int32).reshape(4, 10)
    values[:, :6].tofile(tmp_path / "left")
    values[:, 6:].tofile(tmp_path / "right")
    left = Window(str(tmp_path / "left"), 0, (4, 6), (6, 1), "int32")
    right = Window(str(tmp_path / "right"), 0, (4, 4), (4, 1), "int32")
    window = tiled((4, 10), "int32", [Tile((0, 6), right), Tile((0, 0), left)])
    assert place_of_range(window, 17, 2) == (str(tmp_path / "right"), (1 * 4 + 1) * 4)
    assert isinstance(place_of_range(window, 15, 4)[0], Gather)


def test_a_gather_keeps_to_its_scratch(tmp_path: Path) -> None:
    values = np.arange(4096 * 64, dtype=np.int32).reshape(4096, 64)
    tiles = []
    for number in range(4):
        part = values[:, number * 16 : number * 16 + 16]
        part.tofile(tmp_path / str(number))
        tiles.append(Tile((0, number * 16), Window(str(tmp_path / str(number)), 0, (4096, 16), (16, 1), "int32")))
    window = tiled(values.shape, "int32", tiles)
    into, sources = memoryview(bytearray(values.nbytes)), Sources()
    most = {}
    for scratch in (8 << 10, 1 << 20):
        tracemalloc.start()
        Gather(window, scratch).read(sources.read, into, 0)
        most[scratch] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert np.array_equal(np.frombuffer(into, np.int32).reshape(values.shape), values)
    sources.close()
    assert most[8 << 10] < 64 << 10 < most[1 << 20] < 3 << 20


def test_only_the_rows_that_are_asked_for_are_read(tmp_path: Path) -> None:
    """A tensor of 10 GB in two column halves, in sparse files: a region costs its own bytes, and at most those between."""
    rows, columns = 1 << 17, 20_000
    halves = []
    for number in range(2):
        path = tmp_path / str(number)
        with path.open("wb") as file:
            file.truncate(rows * columns // 2 * 4)
        halves.append(Tile((0, number * columns // 2), Window(str(path), 0, (rows, columns // 2), (columns // 2, 1), "int32")))
    window = tiled((rows, columns), "int32", halves)
    read = 0

    def counted(path: str, into: memoryview, at: int) -> None:
        nonlocal read
        read += len(into)

    into = memoryview(bytearray(3 * columns * 4))
    Gather(window).read(counted, into, 70_000 * columns * 4)
    assert read == len(into)
