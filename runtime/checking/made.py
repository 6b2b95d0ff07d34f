"""Tensors that a layout calculates in, and the same as if a file held them out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from ..binding.made_tensors import FUNCTIONS
from ..files.window import Entry, Window, row_major
from .elements import Files
from .locate import Located

Made: TypeAlias = tuple[str, str, tuple[int, ...], tuple[float, ...]]  # name, function, shape, numbers


def hold_made(files: Files, located: Located, made: Sequence[Made]) -> Located:
    """The side with the elements of these tensors, which `files` then hold in memory, in float32."""
    if not made:
        return located
    by_name: dict[str, Entry] = {}
    for name, function, shape, args in made:
        values = FUNCTIONS[function](shape, *args).numpy().astype(np.float32)
        files.held[name] = values
        by_name[name] = Entry(name, "", Window(name, 0, shape, row_major(shape), "float32"))
    entries = tuple(entry or by_name.get(name) for entry, name in zip(located.entries, located.names, strict=True))
    return replace(located, entries=entries)
