"""Families of stored tensors and a checkpoint in; the entry of each, and what is missing, spare or of another shape, out.
Nothing is refused here: everything is found, and named."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..files.indexed import by_index
from ..files.window import Entry
from ..plan.expand import Family, further_copies

_HOLE = re.compile(r"\{[^{}]*\}")


@dataclass(frozen=True)
class Lost:
    """A stored tensor that a layout has and a checkpoint has not: by its number, its name and its file, empty where it may
    be in any. `file_there`: whether the checkpoint has that file."""

    number: int
    name: str
    file: str
    file_there: bool


@dataclass(frozen=True, eq=False)
class Located:
    """The entry of each stored tensor by its number, None where there is none. `misshapen` are those of another shape."""

    families: tuple[Family, ...]
    entries: tuple[Entry | None, ...]
    names: tuple[str, ...]
    files: tuple[str, ...]
    lost: tuple[Lost, ...]
    spare: tuple[Entry, ...]
    misshapen: tuple[int, ...]

    def family(self, number: int) -> Family:
        return next(f for f in self.families if f.start <= number < f.start + len(f.rows))

    def shape(self, number: int) -> tuple[int, ...]:
        return self.family(number).stored.shape


def locate(families: Sequence[Family], entries: Sequence[Entry], ignored: Iterable[str] = ()) -> Located:
    """Which entry each stored tensor is. `ignored` are patterns of names that may be there besides."""
    every = by_index(tuple(entries), (name for f in families for name in (f.stored.name, *f.stored.others)))
    in_files = {(entry.file, entry.name): entry for entry in every}
    by_name: dict[str, Entry] = {}
    for each in every:
        by_name.setdefault(each.name, each)
    there = {each.file for each in every}
    found: list[Entry | None] = []
    names: list[str] = []
    places: list[str] = []
    lost: list[Lost] = []
    misshapen: list[int] = []
    for family in families:
        stored = family.stored
        spellings = list(zip(*(family.spell(p) for p in (stored.name, *stored.others)), strict=True))
        files = list(zip(*(family.spell(p) for p in (stored.file, *stored.other_files)), strict=True)) if stored.file else []
        further = further_copies(family)
        for row, spelled in enumerate(spellings):
            number = family.start + row
            file = _file(files[row], there) if files else None
            hits = [in_files.get((file or "", n)) if files else by_name.get(n) for n in spelled]
            entry = next((hit for hit in hits if hit is not None), None)
            found.append(entry)
            names.append(entry.name if entry is not None else spelled[0])
            places.append(entry.file if entry is not None else files[row][0] if files else "")
            if entry is None and not stored.optional and not further[row]:
                lost.append(Lost(number, spelled[0], places[-1], not files or file is not None))
            elif entry is not None and entry.shape != stored.shape:
                misshapen.append(number)
    used = {(e.file, e.name) for e in found if e is not None}
    dropped = [re.compile(r"\d+".join(map(re.escape, _HOLE.split(p)))) for p in ignored]
    spare = tuple(e for e in every if (e.file, e.name) not in used and not any(p.fullmatch(e.name) for p in dropped))
    return Located(tuple(families), tuple(found), tuple(names), tuple(places), tuple(lost), spare, tuple(misshapen))


def _file(spellings: Sequence[str], there: set[str]) -> str | None:
    """The file of one of these names, or of a tail of one where a checkpoint was opened at an inner folder."""
    tails = ("/".join(parts[i:]) for parts in (name.split("/") for name in spellings) for i in range(len(parts)))
    return next((name for name in tails if name in there), None)
