"""Two checkpoints in, whether the second holds exactly what the first holds out: `ckptc.verify`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..choices.arguments import parse_size
from ..choices.stage_text import Said
from ..compiler.settle.sizes import Scalar
from ..compiler.values.stages import Given
from ..runtime.checking.compare import Counts, Gap, Pair, compare
from ..runtime.checking.contents import Contents
from ..runtime.checking.elements import Files
from ..runtime.checking.made import hold_made
from ..runtime.checking.overlaps import Overlaps
from ..runtime.checking.suspects import Suspects
from ..runtime.checkpoint.checkpoint import Checkpoint
from ..runtime.files.window import Entry
from ..runtime.progress import OnProgress
from .alternatives import alternatives
from .findings import differs, extra, lost, misshapen, side_record
from .report import Difference, Verification
from .sides import Asked, Read, Sides, read_sides, with_made
from .ticking import Ticking

PER_ELEMENT, WHOLE = 128, 96  # bytes of working memory for each element that is compared, or held to be explained, at once
MOST_EXPLAINED = 2048  # tensors whose difference is looked into


def verify(
    src: str | Path | Checkpoint,
    dst: str | Path | Checkpoint,
    *,
    to: str | None = None,
    from_: str | None = None,
    mapping: str | Path | None = None,
    family: str | None = None,
    config: str | Path | None = None,
    revision: str | None = None,
    stages: str | Said | Given | None = None,
    from_stages: str | Said | Given | None = None,
    settings: Mapping[str, Scalar] | None = None,
    from_settings: Mapping[str, Scalar] | None = None,
    accept: Collection[str] = (),
    explain: bool = True,
    memory: int | str = 512 << 20,
    progress: OnProgress | None = None,
    **degrees: Scalar,
) -> Verification:
    """Whether the checkpoint at `dst` holds exactly what that at `src` holds, whoever wrote it: any two layouts, formats and
    degrees.

    Both are read as their layouts say, and every element of the model is compared, with all its copies, by a path of its own
    that shares nothing with conversions but the layouts. Layouts and their parameters are found from the files unless given,
    as those of `ckptc.plan` are: `to`, `stages` and `settings` say it of `dst`, `from_`, `from_stages` and `from_settings`
    of `src`. What differs is named, and, with `explain`, what would make it equal. `memory` is the most working memory, in
    bytes or as a text. Raises `Fault` or `MappingError` where a checkpoint cannot be read, or is of no layout that is known.
    """
    asked = Asked(
        to=to, from_=from_, mapping=mapping, family=family, config=config, revision=revision, stages=stages, from_stages=from_stages,
        settings=settings, from_settings=from_settings, accept=accept,
    )  # fmt: skip
    return verify_sides(read_sides(src, dst, asked, degrees), parse_size(memory), explain, progress)


def verify_sides(sides: Sides, memory: int, explain: bool = True, progress: OnProgress | None = None) -> Verification:
    """The same of two sides that are read."""
    source, target = sides.source, sides.target
    with _pairing(source, target, memory) as pair:
        counts, own_counts = Counts(), Counts()
        tick = Ticking(progress, target)
        gaps = compare(pair, counts, tick=tick)
        own = replace(pair, target=pair.source, overlaps=Overlaps(pair.overlaps.sources, source.rules))
        own_gaps = compare(own, own_counts, only_copies=True)
        notes = [*sides.notes]
        if own_gaps:
            ranks = {n for n, degree in source.side.ranks.items() if target.side.ranks.get(n) == degree}
            gaps = _rank_by_rank(pair, ranks, own_gaps, gaps, counts, notes)
        suspects = Suspects(Contents(pair), max(4096, memory // WHOLE), {n: v for n, v in sides.sizes.values.items() if type(v) is int}) if explain else None
        found = [*_absent(sides, suspects, notes), *_unequal(sides, pair, gaps, suspects, memory)]
        if counts.filled:
            notes.append(f"{counts.filled:,} of {counts.padding:,} padding elements of the target are not as its layout fills them")
    return Verification(
        side_record(source), side_record(target), counts.different, tuple(found), tuple(notes),
        family=sides.family.name, tensors=sum(e is not None for e in target.located.entries), equal=counts.equal, copies=counts.copies,
        padding=counts.padding, rounded=counts.rounded, calculated=counts.calculated, unlike_padding=counts.filled, decoded=counts.decoded,
    )  # fmt: skip


@contextmanager
def _pairing(source: Read, target: Read, memory: int) -> Iterator[Pair]:
    """Both sides to compare, with what the target calculates."""
    grown, made = with_made(source, target)
    with Files() as files:
        located = hold_made(files, grown.located, made)
        yield Pair(located, target.located, Overlaps(grown.rules, target.rules), files, max(1024, memory // PER_ELEMENT))


def _rank_by_rank(
    pair: Pair, ranks: Collection[str], own_gaps: Mapping[int, Gap], gaps: dict[int, Gap], counts: Counts, notes: list[str]
) -> dict[int, Gap]:
    """The source's copies differ among themselves: a target that has them as they are, rank by rank, is no different."""
    names = dict.fromkeys(pair.source.names[n] for n in own_gaps)
    few = ", ".join(f"`{n}`" for n in list(names)[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    notes.append(f"copies of one tensor differ in the source itself: {few}")
    copied = {n for n, gap in gaps.items() if gap.copy}
    again = Counts()
    by_rank = replace(pair, overlaps=Overlaps(pair.overlaps.sources, pair.overlaps.targets, by_rank=ranks))
    left = compare(by_rank, again, only=copied)
    kept = {n: gap for n, gap in gaps.items() if n not in copied or n in left}
    for number in copied - set(left):
        counts.different -= gaps[number].different
        counts.copies += gaps[number].different
    if len(kept) < len(gaps):
        notes.append("the target has these copies as they are, rank by rank")
    return kept


def _absent(sides: Sides, suspects: Suspects | None, notes: list[str]) -> list[Difference]:
    """What one side has and the other has not, or has in another shape."""
    target, source = sides.target.located, sides.source.located
    found: list[Difference] = []
    spare: list[Entry] = []
    for entry in target.spare:
        if any(_is_of(pattern, entry.name) for pattern in sides.buffers):
            notes.append(f"`{entry.name}` is a buffer that only the target has: it is not compared")
        else:
            spare.append(entry)
    renamed: dict[int, Entry] = {}
    if suspects is not None:
        for entry in spare[:MOST_EXPLAINED]:
            numbers = [x.number for x in target.lost if target.shape(x.number) == entry.shape and x.number not in renamed]
            if (hit := suspects.contents.holds(entry.window, numbers)) is not None:
                renamed[hit] = entry
    found += lost(sides.source, source.lost, "source", {})
    found += lost(sides.target, target.lost, "target", {n: f"what it should hold is there as `{e.name}`" for n, e in renamed.items()})
    by_entry = {(e.file, e.name): n for n, e in renamed.items()}
    for entry in spare:
        number = by_entry.get((entry.file, entry.name))
        if number is None and suspects is not None and len(found) < MOST_EXPLAINED:
            alike = [f.start + row for f in target.families if f.stored.shape == entry.shape for row in range(len(f.rows))]
            number = suspects.contents.holds(entry.window, alike)
        found.append(extra(entry, f"it holds what `{target.names[number]}` should hold" if number is not None else ""))
    for number in target.misshapen:
        found.append(misshapen(sides.target, number, "target", suspects.explain(number) if suspects is not None else ""))
    for number in source.misshapen:
        found.append(misshapen(sides.source, number, "source", ""))
    found += [extra(entry, "", "source") for entry in source.spare]
    return found


def _is_of(pattern: str, name: str) -> bool:
    return re.fullmatch(r"\d+".join(map(re.escape, re.split(r"\{[^{}]*\}", pattern))), name) is not None


def _unequal(sides: Sides, pair: Pair, gaps: Mapping[int, Gap], suspects: Suspects | None, memory: int) -> list[Difference]:
    """What differs, each with what would make it equal."""
    ordered = [gaps[n] for n in sorted(gaps)]
    said: dict[int, tuple[str, str]] = {}
    if suspects is not None and ordered:
        said = _by_parameters(sides, pair, [g for g in ordered if not g.cannot], memory)
        for gap in [g for g in ordered if g.number not in said and not g.cannot][:MOST_EXPLAINED]:
            said[gap.number] = suspects.explain(gap.number, gap.first_target, gap.different), ""
    return [differs(sides, pair, gap, *said.get(gap.number, ("", ""))) for gap in ordered]


def _by_parameters(sides: Sides, pair: Pair, gaps: list[Gap], memory: int) -> dict[int, tuple[str, str]]:
    """Of the tensors that differ, those that are equal where a layout is read with another value of one parameter."""
    said: dict[int, tuple[str, str]] = {}
    family, sizes = sides.family, sides.sizes
    target, source = sides.target, sides.source
    for setting, other in alternatives(target, family, sizes, source.side):
        with _pairing(source, other, memory) as again:
            equal = _equal_now(pair, again, [g for g in gaps if g.number not in said])
        for number in equal:
            said[number] = f"it is equal where {target.side.layout} is read with {setting}", f"--set {setting}"
    for setting, other in alternatives(source, family, sizes):
        with _pairing(other, target, memory) as again:
            equal = _equal_now(pair, again, [g for g in gaps if g.number not in said])
        for number in equal:
            said[number] = f"it is equal where the source, {source.side.layout}, is read with {setting}", f"--from-set {setting}"
    return said


def _equal_now(pair: Pair, again: Pair, gaps: list[Gap]) -> list[int]:
    """Those that do not differ any more. One of each rule is tried first, and the others only if that helps."""
    places = {(f, n): i for i, (f, n, e) in enumerate(zip(again.target.files, again.target.names, again.target.entries, strict=True)) if e is not None}
    by_rule: dict[int, list[tuple[int, int]]] = {}
    for gap in gaps:
        number = places.get((pair.target.files[gap.number], pair.target.names[gap.number]))
        if number is not None:
            by_rule.setdefault(again.target.family(number).start, []).append((gap.number, number))
    rules = {rule.family.start: i for i, rule in enumerate(again.overlaps.targets)}
    helped: list[int] = []
    for start, members in by_rule.items():
        if compare(again, Counts(), only={members[0][1]}, rules=[rules[start]]):
            continue
        left = compare(again, Counts(), only={n for _, n in members}, rules=[rules[start]])
        helped += [own for own, number in members if number not in left]
    return helped
