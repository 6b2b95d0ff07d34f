"""Two entries of one name that differ in; what would explain it out, from their elements, shapes and order alone."""

from __future__ import annotations

from math import prod

import numpy as np

from ..files.window import Entry, row_major
from .elements import Files, take
from .numbers import can_cast, cast, truncated
from .orders import reordered
from .relations import of_elements, of_shape


def explain_alone(files: Files, one: Entry, other: Entry, most: int) -> str:
    """What was done to `one` to make `other` of it; empty where nothing that is known was, or both are too large to hold."""
    if max(prod(one.shape), prod(other.shape)) > most or not can_cast(one.dtype, other.dtype) or other.dtype.startswith("complex"):
        return ""
    raw, found = (
        take(files, e.window, 0, [np.arange(n, dtype=np.int64) * s for n, s in zip(e.shape, row_major(e.shape), strict=True)]).reshape(e.shape)
        for e in (one, other)
    )
    wanted = cast(raw, one.dtype, other.dtype)
    cut = truncated(raw, one.dtype, other.dtype)
    if cut is not None and cut.shape == found.shape and np.array_equal(cut, found):
        return f"elements are cut off to {other.dtype} (towards zero), and should be rounded to the nearest"
    return (of_elements(wanted, found, other.dtype) if wanted.shape == found.shape else "") or of_shape(wanted, found) or reordered(wanted, found, ())
