"""What a checkpoint is: its family, its layout and the layout's parameters, found from headers and config.

A layout fits when its rules can spell every name that is there, and it is taken with those parameter
values under which names and shapes are all as found. Nothing is guessed from a name alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..link.flat import Family, FlatLayout
from .match import Found, files_pattern, match_file, ranks_of, stored_tensors, unmatched


@dataclass(frozen=True)
class Fit:
    family: Family
    layout: FlatLayout
    missing: tuple[str, ...]  # representatives of names that the layout cannot spell


def find_layouts(
    families: Sequence[Family], found: Sequence[Found], layout: str | None = None, may_be: Callable[[FlatLayout], bool] = lambda layout: True
) -> list[Fit]:
    """Families and layouts that can spell the names, best first: all names, then the most rules used. What layout it is may
    be known, or which it `may_be`."""
    scored = []
    for family in families:
        for candidate in family.layouts:
            if layout not in (None, candidate.name) or not may_be(candidate):
                continue
            if files_pattern(candidate) and ranks_of(candidate, found) is None:
                continue
            missing = unmatched(candidate, found)
            used = len(stored_tensors(candidate, found))
            if used:
                pinned = bool(files_pattern(candidate))
                scored.append(((len(missing), not pinned, -used), Fit(family, candidate, tuple(missing))))
    scored.sort(key=lambda x: x[0])
    return [fit for _, fit in scored]


def stray_files(families: Sequence[Family], found: Sequence[Found], layout: str | None = None) -> tuple[FlatLayout, tuple[str, ...]] | None:
    """A layout whose file names most files have, and those files that have another: none of its can be told."""
    files = tuple(dict.fromkeys(f.file for f in found))
    for candidate in (c for family in families for c in family.layouts if layout in (None, c.name)):
        for pattern in files_pattern(candidate):
            strays = tuple(f for f in files if match_file(pattern, f) is None)
            if strays and 2 * len(strays) <= len(files):
                return candidate, strays
    return None
