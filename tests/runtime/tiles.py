"""Arrays laid out in tiles, in several files."""

from __future__ import annotations

import random
from itertools import pairwise, product
from pathlib import Path

import numpy as np

from ckptc.runtime.files.window import Tile, Window, row_major, tiled


def cuts(extent: int, rng: random.Random) -> list[tuple[int, int]]:
    """`extent` in uneven parts: (first, how many)."""
    inner = sorted(rng.sample(range(1, extent), rng.randint(0, min(3, extent - 1)))) if extent > 1 else []
    bounds = [0, *inner, extent]
    return [(a, b - a) for a, b in pairwise(bounds)]


def laid_out(folder: Path, values: np.ndarray, rng: random.Random, margin: int = 0, dtype: str = "int32") -> Window:
    """`values` in tiles at odd bytes of several files, each tile `margin` wider along every axis than what counts of it."""
    tiles = []
    for number, block in enumerate(product(*(cuts(n, rng) for n in values.shape))):
        first = tuple(a for a, _ in block)
        part = values[tuple(slice(a, a + n) for a, n in block)]
        stored = np.zeros([n + margin for n in part.shape], dtype=values.dtype)
        stored[tuple(slice(0, n) for n in part.shape)] = part
        path = folder / f"{number % 3}.bin"
        at = path.stat().st_size + 3 if path.exists() else 1
        with path.open("ab") as file:
            file.write(b"\xff" * (at - (path.stat().st_size if path.exists() else 0)))
            file.write(stored.tobytes())
        tiles.append(Tile(first, Window(str(path), at, part.shape, row_major(stored.shape), dtype)))
    rng.shuffle(tiles)
    return tiled(values.shape, dtype, tiles)
