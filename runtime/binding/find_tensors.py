"""Finds each tensor a plan reads in a checkpoint: families and entries in, a window per tensor or faults out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from math import prod
from typing import NoReturn, Protocol

from ..fault import Fault
from ..files.indexed import by_index
from ..files.window import ITEM_BYTES, Entry, SideFile, Window, parts_of
from ..plan.expand import Family, further_copies, spelled
from ..plan.plan import Side, Stored, made_name
from ..words import SHOWN, count, few

MOST_SPARE = 100_000


class Readable(Protocol):
    """What binding needs of an opened checkpoint."""

    @property
    def path(self) -> str | os.PathLike[str]: ...
    @property
    def entries(self) -> tuple[Entry, ...]: ...
    @property
    def beside(self) -> tuple[SideFile, ...]: ...


def _pattern(text: str) -> re.Pattern[str]:
    """A name or file pattern as an expression; its holes match digits."""
    return re.compile("(\\d+)".join(re.escape(part) for part in re.split(r"\{[^{}]*\}", text)))


def _near(name: str, names: Iterable[str]) -> str | None:
    import difflib

    found = difflib.get_close_matches(name, list(names)[:20000], n=1, cutoff=0.8)
    return found[0] if found else None


def _suggest(wanted: list[str], there: Iterable[str]) -> str:
    pool = list(there)
    for name in wanted[:SHOWN]:
        near = _near(name, pool)
        if near:
            return f"`{name}` is near `{near}`"
    return ""


class _Files:
    """Which of the checkpoint's files a formatted file name means."""

    def __init__(self, entries: tuple[Entry, ...]) -> None:
        self.there = dict.fromkeys(entry.file for entry in entries)
        self.found: dict[tuple[str, ...], str | None] = {}

    def find(self, spellings: tuple[str, ...]) -> str | None:
        """The file of one of these names, or of a tail of one where the checkpoint was opened at an inner folder."""
        if spellings not in self.found:
            tails = [wanted.split("/") for wanted in spellings]
            choices = ("/".join(tail[i:]) for tail in tails for i in range(len(tail)))
            self.found[spellings] = next((name for name in choices if name in self.there), None)
        return self.found[spellings]


def _file_patterns(stored: Stored) -> tuple[str, ...]:
    return (stored.file, *stored.other_files) if stored.file else ()


def refuse_far_too_many(side: Side, checkpoint: Readable) -> None:
    """A config that asks for millions of tensors more than there are is refused before they are listed."""
    wanted = sum(prod(extent for extent, _ in box.loops) for s in side.stored if not s.optional for box in s.boxes)
    there = len(checkpoint.entries)
    if wanted - there > MOST_SPARE:
        raise Fault(
            "missing-tensor",
            f"{checkpoint.path} holds {count(there, 'tensor')}, layout `{side.layout}` needs {wanted:,}",
            help="check that the config belongs to this checkpoint",
        )


def match(
    side: Side, families: tuple[Family, ...], checkpoint: Readable, made: tuple[Entry, ...] = ()
) -> list[Entry | None]:
    """The entry of every stored tensor, by global number; None only where an optional one is absent, or a copy that
    ranks share. `made` are entries beside the checkpoint's own."""
    spelled_so = (name for stored in side.stored for name in (stored.name, *stored.others))
    entries = (*by_index(checkpoint.entries, spelled_so), *made)
    files = _Files(entries)
    by_name: dict[str, Entry] = {}
    by_place: dict[tuple[str, str], Entry] = {}
    for entry in entries:
        by_name.setdefault(entry.name, entry)
        by_place[entry.file, entry.name] = entry
    found: list[Entry | None] = []
    missing: list[str] = []
    missing_files: dict[str, None] = {}
    shapes: list[str] = []
    for family in families:
        stored = family.stored
        spellings = [family.spell(pattern) for pattern in (stored.name, *stored.others)]
        places = list(zip(*(family.spell(pattern) for pattern in _file_patterns(stored)), strict=True))
        further = further_copies(family)
        for i, name in enumerate(spellings[0]):
            hit: Entry | None = None
            place = files.find(places[i]) if places else None
            needed = not stored.optional and not further[i]
            if places and place is None:
                found.append(None)
                if needed:
                    missing_files[places[i][0]] = None
                continue
            for spelling in spellings:
                hit = by_name.get(spelling[i]) if place is None else by_place.get((place, spelling[i]))
                if hit is not None:
                    break
            found.append(hit)
            if hit is None:
                if needed:
                    missing.append(f"{place}: {name}" if place else name)
            elif hit.window.shape != stored.shape:
                shapes.append(f"`{hit.name}` in {hit.file}: {list(hit.window.shape)}, expected {list(stored.shape)}")
    if missing_files:
        _missing_files(list(missing_files), files, side, families, str(checkpoint.path))
    _extra_files(files, side, tuple(f for f in families if not f.stored.name.startswith(made_name(""))), str(checkpoint.path))
    used = {(entry.file, entry.name) for entry in found if entry is not None}
    unknown = _unknown(entries, used, side)
    if missing:
        there = dict.fromkeys(entry.name for entry in entries if (entry.file, entry.name) not in used)
        near = _suggest([name.split(": ", 1)[-1] for name in missing], there)
        raise Fault(
            "missing-tensor",
            f"{checkpoint.path} lacks {count(len(missing), 'tensor')} of layout `{side.layout}`",
            notes=few(missing) + ((near,) if near else ()),
            help="check the layout and its settings, or that every shard was downloaded",
        )
    if unknown:
        _unknown_tensors(unknown, side, str(checkpoint.path))
    if shapes:
        raise Fault(
            "wrong-shape",
            f"{count(len(shapes), 'tensor')} in {checkpoint.path} not shaped as layout `{side.layout}` says",
            notes=few(shapes),
            help="check that the config belongs to this checkpoint, and the ranks and settings of the layout",
        )
    return found


def _unknown(entries: tuple[Entry, ...], used: set[tuple[str, str]], side: Side) -> list[Entry]:
    ignored = [_pattern(pattern) for pattern in side.ignored]
    return [
        entry
        for entry in entries
        if (entry.file, entry.name) not in used and not any(p.fullmatch(entry.name) for p in ignored)
    ]


def _unknown_tensors(unknown: list[Entry], side: Side, path: str) -> NoReturn:
    patterns = dict.fromkeys(name for stored in side.stored for name in (stored.name, *stored.others))
    notes = []
    for entry in unknown[:SHOWN]:
        near = _near(re.sub(r"\d+", "{}", entry.name), (re.sub(r"\{[^{}]*\}", "{}", p) for p in patterns))
        spelled_so = next((p for p in patterns if re.sub(r"\{[^{}]*\}", "{}", p) == near), None)
        notes.append(f"{entry.file}: {entry.name}" + (f" (near `{spelled_so}`)" if spelled_so else ""))
    if len(unknown) > SHOWN:
        notes.append(f"... and {len(unknown) - SHOWN} more")
    raise Fault(
        "unknown-tensor",
        f"{path} holds {count(len(unknown), 'tensor')} that no rule of layout `{side.layout}` maps",
        notes=tuple(notes),
        help="map them with a rule, or drop them on purpose with `ignore \"name\"` in the layout",
    )


def _degrees(names: Iterable[str], families: tuple[Family, ...]) -> str:
    """The degrees that the rank files show, such as `tp = 8, pp = 2`."""
    seen: dict[str, int] = {}
    for pattern in dict.fromkeys(p for family in families for p in _file_patterns(family.stored)):
        fields = spelled(pattern)
        for name in names:
            tails = pattern.split("/")
            for i in range(len(tails)):
                hit = _pattern("/".join(tails[i:])).fullmatch(name)
                if hit:
                    for field, value in zip(fields[len(fields) - len(hit.groups()) :], hit.groups(), strict=True):
                        seen[field] = max(seen.get(field, 0), int(value) + 1)
                    break
    return ", ".join(f"{field} = {value}" for field, value in seen.items())


def _missing_files(
    missing: list[str], files: _Files, side: Side, families: tuple[Family, ...], path: str
) -> NoReturn:
    fits = _degrees(files.there, families)
    said = ", ".join(f"{name} = {value}" for name, value in side.ranks)
    raise Fault(
        "missing-file",
        f"{path} lacks {count(len(missing), 'file')} of layout `{side.layout}`" + (f" with {said}" if said else ""),
        notes=few(missing) + ((f"the files that are there fit {fits}",) if fits else ("there are " + ", ".join(sorted(files.there)[:SHOWN]),)),
        help=f"use {fits}" if fits and _differ(fits, side) else "check that every file is there",
    )


def _differ(fits: str, side: Side) -> bool:
    """Whether the files show other degrees than the side's."""
    return any(f"{name} = {value}" not in fits.split(", ") for name, value in side.ranks if f"{name} = " in fits)


def _extra_files(files: _Files, side: Side, families: tuple[Family, ...], path: str) -> None:
    if not families or not all(family.stored.file for family in families):
        return
    used = set(files.found.values())
    patterns = {pattern for family in families for pattern in _file_patterns(family.stored)}
    tails = {"/".join(parts[i:]) for parts in (p.split("/") for p in patterns) for i in range(len(parts)) if "{" in "".join(parts[i:])}
    expressions = [_pattern(tail) for tail in tails]
    extra = [name for name in files.there if name not in used and any(e.fullmatch(name) for e in expressions)]
    fits = _degrees(extra, families)
    if extra and fits:
        said = ", ".join(f"{name} = {value}" for name, value in side.ranks)
        fits = _degrees(files.there, families)
        raise Fault(
            "extra-file",
            f"{path} holds {count(len(extra), 'rank file')} beyond layout `{side.layout}`"
            + (f" with {said}" if said else ""),
            notes=(*few(extra), f"the files that are there fit {fits}"),
            help=f"use {fits}",
        )


def check_extents(windows: list[Window | None]) -> None:
    """Refuses files that end before the windows in them do."""
    sizes: dict[str, int] = {}
    short: dict[str, str] = {}
    for window in (part for each in windows if each is not None for part in parts_of(each)):
        size = sizes.get(window.path)
        if size is None:
            try:
                size = sizes[window.path] = os.stat(window.path).st_size
            except OSError as error:
                raise Fault("missing-file", f"{window.path}: {error.strerror}") from error
        reach = 0
        if 0 not in window.shape:
            reach = 1 + sum((n - 1) * stride for n, stride in zip(window.shape, window.strides, strict=True))
        end = window.at + reach * ITEM_BYTES[window.dtype]
        if end > size and window.path not in short:
            short[window.path] = f"{window.path} has {size:,} bytes, a tensor in it ends at byte {end:,}"
    if short:
        raise Fault(
            "truncated-file",
            f"{count(len(short), 'file')} end before their tensors do",
            notes=few(short.values()),
            help="download or copy them again",
        )
