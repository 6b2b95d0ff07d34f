"""Two arrays of one dtype in; what of the second explains how it differs from the first, in words, out: what can be seen of
the elements, and of the shapes, by themselves. Empty where nothing does."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np

from .numbers import Array, from_numbers, is_floating, numbers, unequal

MOST_FLIPS = 16
NARROWER = {"float64": ("float32", "bfloat16", "float16"), "float32": ("bfloat16", "float16"), "float16": ("bfloat16",)}


def of_elements(wanted: Array, found: Array, dtype: str, starts: Sequence[int] = ()) -> str:
    """What is the matter with elements that stand where they belong. `starts`: where these begin in the tensor."""
    differ = wanted != found
    a, b = wanted[differ], found[differ]
    if not len(a):
        return ""
    if is_floating(dtype):
        x, y = numbers(a, dtype), numbers(b, dtype)
        if ((x == 0) & (y == 0)).all():
            return "only the signs of zeros differ"
        if (np.isnan(x) & np.isnan(y)).all():
            return "only the payloads of NaN differ"
    if dtype.startswith("complex"):
        return ""
    if len(a) <= MOST_FLIPS and (flips := _flips(wanted, found, differ, starts)):
        return flips
    if not found.view(np.uint8).any():
        return "all elements are zero: it was never filled"
    if is_floating(dtype) and np.isnan(numbers(found, dtype)).all():
        return "all elements are NaN: it was never filled"
    if found.size > 1 and (found == found.ravel()[0]).all():
        return f"all elements are {float(numbers(found, dtype).ravel()[0]):.6g}: it was initialised and never filled"
    if not b.view(np.uint8).any():
        return "the elements that differ are all zero: they were never filled"
    if found.dtype.itemsize > 1 and (wanted.byteswap() == found).all():
        return "the bytes of each element are in reverse order"
    if is_floating(dtype):
        return _calculated(wanted, found, dtype)
    return ""


def _flips(wanted: Array, found: Array, differ: Array, starts: Sequence[int]) -> str:
    changed = (wanted ^ found)[differ].tolist()
    if any(bits.bit_count() != 1 for bits in changed):
        return ""
    first = [at + (starts[k] if k < len(starts) else 0) for k, at in enumerate(np.argwhere(differ)[0].tolist())]
    bit = changed[0].bit_length() - 1
    if len(changed) == 1:
        return f"one bit is flipped: bit {bit} of the element at {first}"
    return f"{len(changed)} bits are flipped, one in each of as many elements; the first is bit {bit} of the element at {first}"


def _calculated(wanted: Array, found: Array, dtype: str) -> str:
    x, y = numbers(wanted, dtype).astype(np.float64), numbers(found, dtype).astype(np.float64)
    for narrow in NARROWER.get(dtype, ()):
        less = from_numbers(numbers(wanted, dtype), narrow)
        if not unequal(from_numbers(numbers(less, narrow), dtype), found, dtype, exact=False).any():
            return f"elements went through {narrow}, which keeps fewer bits"
    with np.errstate(all="ignore"):
        gap = np.median(y - x)
        ratios = (y / x)[np.abs(x) > 0]
        ratio = np.median(ratios) if ratios.size else np.nan
        for amount in dict.fromkeys((1.0, -1.0, float(gap))):
            if amount and np.isfinite(amount) and _near(x + amount, y, dtype):
                return f"{abs(amount):.6g} is {'added to' if amount > 0 else 'taken from'} each element"
        if np.isfinite(ratio) and ratio and ratio != 1:
            for factor in dict.fromkeys((_rounded(float(ratio)), float(ratio))):
                if factor != 1 and _near(x * factor, y, dtype):
                    return "each element has the opposite sign" if factor == -1 else f"each element is multiplied by {factor:.6g}"
        if _near(y * y, x, dtype, loose=8) and (x >= 0).all():
            return "each element is the square root of what it should be"
    return ""


def _rounded(ratio: float) -> float:
    """The simple number that a ratio of rounded numbers is near, or itself."""
    for simple in (-1.0, 2.0, 0.5, 4.0, 0.25, 8.0, 0.125):
        if abs(ratio - simple) < 0.01 * abs(simple):
            return simple
    return ratio


def _near(wanted: Array, found: Array, dtype: str, loose: int = 1) -> bool:
    """Whether two arrays of numbers are equal but for a rounding in `dtype`, or in float32."""
    step = {"float64": 2.0**-50, "float32": 2.0**-22, "bfloat16": 2.0**-7, "float16": 2.0**-9}.get(dtype)
    if step is None:
        return False
    finite = np.isfinite(wanted) & np.isfinite(found)
    if not finite.any() or (finite != (np.isfinite(wanted) | np.isfinite(found))).any():
        return False
    size = np.maximum(np.abs(wanted), np.abs(found))
    return bool((np.abs(wanted - found)[finite] <= loose * step * size[finite] + 1e-30).all())


def of_shape(wanted: Array, found: Array) -> str:
    """What was done to the dimensions: turned, filled up, cut off, or folded otherwise."""
    if turned := _turned(wanted, found):
        return turned
    if wanted.shape == found.shape:
        return ""
    if wanted.ndim == found.ndim and len(axes := [k for k in range(wanted.ndim) if wanted.shape[k] != found.shape[k]]) == 1:
        (axis,) = axes
        both = tuple(slice(0, min(a, b)) for a, b in zip(wanted.shape, found.shape, strict=True))
        where = "rows" if axis == 0 else f"indices of axis {axis}"
        if np.array_equal(wanted[both], found[both]):
            more = found.shape[axis] - wanted.shape[axis]
            if more > 0:
                rest = np.take(found, range(wanted.shape[axis], found.shape[axis]), axis)
                filled = "zeros" if not np.ascontiguousarray(rest).view(np.uint8).any() else "other numbers"
                return f"it has {more} {where} of padding ({filled}) that should be stripped; what is before them is equal"
            return f"the last {-more} {where} are cut off; what is before them is equal"
    if wanted.size == found.size and np.array_equal(wanted.ravel(), found.ravel()):
        return "the elements are equal and in order, in another shape"
    return ""


def _turned(wanted: Array, found: Array) -> str:
    if wanted.ndim < 2 or wanted.ndim > 4 or wanted.size != found.size:
        return ""
    for axes in permutations(range(wanted.ndim)):
        if axes != tuple(range(wanted.ndim)):
            turned = wanted.transpose(axes)
            if turned.shape == found.shape and np.array_equal(turned, found):
                return "it is transposed" if wanted.ndim == 2 else f"its axes are in the order {', '.join(map(str, axes))}"
            if found.shape == wanted.shape and turned.shape != found.shape and np.array_equal(turned.ravel(), found.ravel()):
                return "its elements are those of the transposed tensor, in the shape that it should have"
    return ""
