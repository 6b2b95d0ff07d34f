"""Kernels: one call copies one box between two typed 1-D arrays. numpy does it all, until `prepare` is told of so much
work that loops which Numba compiles are worth the wait.

Casts round to nearest, ties to even. `x * scale + shift` is computed in float32 (float64 where either side
is float64), as two roundings, and then cast: what torch does with such tensors upcast first."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from ..files.window import ITEM_BYTES
from . import turned as plain
from .arrays import Array as Array
from .arrays import blocks, view
from .boxes import LoopT

Kernel: TypeAlias = Callable[[Array, Array, int, int, int, int], object]

ITEMS: dict[int, Any] = {1: np.uint8, 2: np.uint16, 4: np.uint32, 8: np.uint64, 16: np.complex128}
_NATIVE = {
    name: np.dtype(name) for name in ITEM_BYTES if name != "bfloat16" and not name.startswith("float8")
}
_BLOCK = 1 << 16
_ROW = 1 << 16  # bytes of the longest row that is copied as one item
WORTH_BYTES = 16 << 30  # from here on compiled loops save more than their start takes: up to 0.4 s of 10, but once some 6 s
_loops: ModuleType = plain


def prepare(nbytes: int) -> None:
    """Before `nbytes` bytes are turned or cast: has Numba's loops do it where there is so much, and Numba is installed."""
    global _loops
    if nbytes < WORTH_BYTES:
        return
    try:
        from . import jit
    except ImportError:
        return
    _loops = jit


def scratch_bytes(source: str, target: str, affine: bool) -> int:
    """The bytes a cast works in, beside its ends."""
    if source == target and not affine:
        return 0
    return _BLOCK * 16


def turned(loops: tuple[LoopT, ...]) -> bool:
    """Whether the runs of the two sides lie along different loops."""
    if len(loops) < 2:
        return False
    source = min(range(len(loops)), key=lambda k: (loops[k][1] == 0, loops[k][1]))
    target = min(range(len(loops)), key=lambda k: loops[k][2])
    return source != target and loops[source][0] * loops[target][0] >= 1024


def copy(source: Array, target: Array, source_at: int, target_at: int, loops: tuple[LoopT, ...]) -> None:
    """Copies a box; both arrays hold items of one size."""
    if not loops:
        target[target_at] = source[source_at]
    elif len(loops) == 1 and loops[0][1] == loops[0][2] == 1:
        n = loops[0][0]
        target[target_at : target_at + n] = source[source_at : source_at + n]
    elif turned(loops) and source.itemsize < 16:
        _loops.transpose(source, target, source_at, target_at, loops)
    elif loops[-1][1] == loops[-1][2] == 1 and loops[-1][0] * source.itemsize <= _ROW:
        _copy_rows(source, target, source_at, target_at, loops)
    else:
        one, two = view(source, source_at, loops, 1), view(target, target_at, loops, 2)
        np.copyto(two, one)


def _copy_rows(source: Array, target: Array, source_at: int, target_at: int, loops: tuple[LoopT, ...]) -> None:
    """Each row as one opaque item: no numpy loop is begun per row, which is what short rows would wait for."""
    size = source.itemsize
    row = np.dtype((np.void, loops[-1][0] * size))
    extents = [loop[0] for loop in loops[:-1]]
    one = np.ndarray(extents, row, source.data, source_at * size, [loop[1] * size for loop in loops[:-1]])
    two = np.ndarray(extents, row, target.data, target_at * size, [loop[2] * size for loop in loops[:-1]])
    np.copyto(two, one)


def fill(target: Array, target_at: int, loops: tuple[LoopT, ...]) -> None:
    """Writes zeros."""
    view(target, target_at, loops, 2)[...] = 0


def cast(
    source: Array,
    target: Array,
    source_at: int,
    target_at: int,
    loops: tuple[LoopT, ...],
    dtypes: tuple[str, str],
    scale: float = 1.0,
    shift: float = 0.0,
) -> None:
    """Copies a box of `dtypes[0]` to `dtypes[1]`, times `scale`, plus `shift`; arrays are views by item size."""
    one, two = dtypes
    affine = scale != 1.0 or shift != 0.0
    if not affine and dtypes == ("bfloat16", "float32"):
        _loops.widen(source, target, source_at, target_at, loops)
    elif not affine and dtypes == ("float32", "bfloat16"):
        _loops.round_off(source, target, source_at, target_at, loops)
    else:
        wide = np.float64 if "float64" in dtypes and affine else np.float32
        for s, t, part in blocks(source_at, target_at, loops, _BLOCK):
            _cast_block(source, target, s, t, part, one, two, wide, (scale, shift) if affine else None)


def _dense(loops: tuple[LoopT, ...], side: int) -> tuple[LoopT, ...]:
    """The loops with the strides of `side` (1 or 2) as their source and a dense block as their target, or back."""
    out: list[LoopT] = []
    run = 1
    for loop in reversed(loops):
        out.append((loop[0], loop[1], run) if side == 1 else (loop[0], run, loop[2]))
        run *= loop[0]
    return tuple(reversed(out))


def _cast_block(
    source: Array,
    target: Array,
    source_at: int,
    target_at: int,
    loops: tuple[LoopT, ...],
    one: str,
    two: str,
    wide: Any,
    affine: tuple[float, float] | None,
) -> None:
    with np.errstate(all="ignore"):
        seen, put = view(source, source_at, loops, 1), view(target, target_at, loops, 2)
        if one == "bfloat16":
            dense = np.empty(seen.shape, np.float32)
            _loops.widen(source, dense.reshape(-1).view(np.uint32), source_at, 0, _dense(loops, 1))
            value: Array = dense
        else:
            value = seen.view(_NATIVE[one])
        if affine:
            value = value.astype(wide)
            value *= wide(affine[0])
            value += wide(affine[1])
        if two == "float16" and value.dtype == np.float64:
            value = value.astype(np.float32)  # as torch does: a double is first made a float
        if two == "bfloat16":
            ready = np.ascontiguousarray(value, np.float32).reshape(-1).view(np.uint32)
            _loops.round_off(ready, target, 0, target_at, _dense(loops, 2))
        else:
            np.copyto(put.view(_NATIVE[two]), value, casting="unsafe")
