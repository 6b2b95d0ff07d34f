"""Compiled loops: blocked transposes and bfloat16 casts over boxes of any depth. Import only when needed."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from .boxes import LoopT


def _options() -> dict[str, Any]:
    return {"nogil": True, "cache": True, "boundscheck": False}


def _outer(loops: tuple[LoopT, ...]) -> NDArray[np.int64]:
    return np.array(loops, dtype=np.int64).reshape(-1, 3)


@numba.njit(**_options())
def _turns(outer):  # type: ignore[no-untyped-def]
    total = 1
    for k in range(len(outer)):
        total *= outer[k, 0]
    return total


@numba.njit(**_options())
def _starts(outer, turn, source_at, target_at):  # type: ignore[no-untyped-def]
    # Where the turn-th run of the outer loops, the last of them fastest, begins on both sides.
    s, t, left = source_at, target_at, turn
    for k in range(len(outer) - 1, -1, -1):
        i = left % outer[k, 0]
        left //= outer[k, 0]
        s += i * outer[k, 1]
        t += i * outer[k, 2]
    return s, t


@numba.njit(**_options())
def _tiles(source, target, s, t, rows, rows_s, rows_t, cols, cols_s, cols_t, tile):  # type: ignore[no-untyped-def]
    # Through a small dense tile, so that large power-of-two strides do not fight over few cache lines.
    for r in range(0, rows, 64):
        n_rows = min(64, rows - r)
        for c in range(0, cols, 64):
            n_cols = min(64, cols - c)
            for j in range(n_cols):
                at = s + r * rows_s + (c + j) * cols_s
                if rows_s == 1:
                    run = source[at : at + n_rows]
                    for i in range(n_rows):
                        tile[j, i] = run[i]
                else:
                    for i in range(n_rows):
                        tile[j, i] = source[at + i * rows_s]
            for i in range(n_rows):
                at = t + (r + i) * rows_t + c * cols_t
                if cols_t == 1:
                    put = target[at : at + n_cols]
                    for j in range(n_cols):
                        put[j] = tile[j, i]
                else:
                    for j in range(n_cols):
                        target[at + j * cols_t] = tile[j, i]


@numba.njit(**_options())
def _transpose(source, target, source_at, target_at, outer, rows, rows_s, rows_t, cols, cols_s, cols_t):  # type: ignore[no-untyped-def]
    tile = np.empty((64, 66), source.dtype)
    for turn in range(_turns(outer)):
        s, t = _starts(outer, turn, source_at, target_at)
        _tiles(source, target, s, t, rows, rows_s, rows_t, cols, cols_s, cols_t, tile)


@numba.njit(**_options())
def _widen(source, target, source_at, target_at, outer, n, by_s, by_t):  # type: ignore[no-untyped-def]
    for turn in range(_turns(outer)):
        s, t = _starts(outer, turn, source_at, target_at)
        if by_s == 1 and by_t == 1:
            one = source[s : s + n]
            two = target[t : t + n]
            for j in range(n):
                two[j] = np.uint32(one[j]) << np.uint32(16)
        else:
            for j in range(n):
                target[t + j * by_t] = np.uint32(source[s + j * by_s]) << np.uint32(16)


@numba.njit(**_options())
def _round(bits):  # type: ignore[no-untyped-def]
    bits = np.uint32(bits)
    up = np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    nan = (bits >> np.uint32(16)) | np.uint32(0x40)
    return np.uint16(nan if (bits & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000) else up)


@numba.njit(**_options())
def _round_off(source, target, source_at, target_at, outer, n, by_s, by_t):  # type: ignore[no-untyped-def]
    for turn in range(_turns(outer)):
        s, t = _starts(outer, turn, source_at, target_at)
        if by_s == 1 and by_t == 1:
            one = source[s : s + n]
            two = target[t : t + n]
            for j in range(n):
                two[j] = _round(one[j])
        else:
            for j in range(n):
                target[t + j * by_t] = _round(source[s + j * by_s])


def transpose(
    source: NDArray[Any], target: NDArray[Any], source_at: int, target_at: int, loops: tuple[LoopT, ...]
) -> None:
    """Copies a box in tiles of the loop that is densest in the source and the one densest in the target."""
    rows = min(range(len(loops)), key=lambda k: (loops[k][1] == 0, loops[k][1]))
    cols = min(range(len(loops)), key=lambda k: loops[k][2])
    outer = _outer(tuple(loop for k, loop in enumerate(loops) if k not in (rows, cols)))
    _transpose(source, target, source_at, target_at, outer, *loops[rows], *loops[cols])


def widen(
    source: NDArray[Any], target: NDArray[Any], source_at: int, target_at: int, loops: tuple[LoopT, ...]
) -> None:
    """bfloat16 to float32: exact."""
    loops = loops or ((1, 1, 1),)
    _widen(source, target, source_at, target_at, _outer(loops[:-1]), *loops[-1])


def round_off(
    source: NDArray[Any], target: NDArray[Any], source_at: int, target_at: int, loops: tuple[LoopT, ...]
) -> None:
    """float32 to bfloat16: to nearest, ties to even; NaN keeps its sign and top bits and becomes quiet."""
    loops = loops or ((1, 1, 1),)
    _round_off(source, target, source_at, target_at, _outer(loops[:-1]), *loops[-1])
