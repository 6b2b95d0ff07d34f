"""Names in a checkpoint against the names that rules can spell: which tensors are there, under which stage."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from ...dsl.tree import Hole, Pattern, Rule
from ..link.flat import FlatLayout
from ..values.lets import labels
from ..values.stages import Dealt


@dataclass(frozen=True)
class Found:
    """One tensor of a checkpoint as its header tells: file (relative, with `/`), name, dtype, shape."""

    file: str
    name: str
    dtype: str
    shape: tuple[int, ...]


@lru_cache(maxsize=4096)
def regex(pattern: Pattern) -> re.Pattern[str]:
    """The names that a pattern can spell; each hole is a group of digits, named by its axis."""
    out, seen = [], set()
    for part in pattern.parts:
        if isinstance(part, str):
            out.append(re.escape(part))
        elif part.axis in seen:
            out.append(f"(?P={part.axis})")
        else:
            seen.add(part.axis)
            out.append(rf"(?P<{part.axis}>[0-9]{{1,18}})")
    return re.compile("".join(out))


_DIGITS = re.compile(r"\d+")


def skeleton(name: str) -> str:
    """A name with every run of digits as one mark: equal for all layers and experts."""
    return _DIGITS.sub("#", name)


class Names(tuple[Found, ...]):
    """What was found, which remembers how its names are alike."""

    @cached_property
    def kinds(self) -> Mapping[str, Sequence[str]]:
        return _by_skeleton(self)


def kinds_of(found: Iterable[Found]) -> Mapping[str, Sequence[str]]:
    """The names by their skeletons, each once."""
    return found.kinds if isinstance(found, Names) else _by_skeleton(found)


def _by_skeleton(found: Iterable[Found]) -> dict[str, list[str]]:
    alike: dict[str, list[str]] = {}
    for name in dict.fromkeys(item.name for item in found):
        alike.setdefault(skeleton(name), []).append(name)
    return alike


def representatives(found: Iterable[Found]) -> dict[str, str]:
    """One name per skeleton."""
    return {kind: names[0] for kind, names in kinds_of(found).items()}


def skeleton_of(pattern: Pattern) -> str:
    """The skeleton of all names that a pattern spells: a hole is a number."""
    return skeleton("".join(part if isinstance(part, str) else "0" for part in pattern.parts))


def tensors_of(rule: Rule, layout: FlatLayout) -> set[str]:
    """The model tensors that a rule may store, by its own name, its labels and its renames."""
    renames = {r.label: r.tensor for r in rule.renames}
    found = {renames.get(label, label) for label in labels(rule.dims, layout.lets)}
    return found | ({rule.tensor} if rule.tensor else set())


def stored_tensors(layout: FlatLayout, found: Iterable[Found]) -> frozenset[str]:
    """The model tensors that some rule of the layout finds in the checkpoint, whatever the rules' guards say."""
    alike = kinds_of(found)
    out: set[str] = set()
    for flat in layout.rules:
        if any(_is_there(p, alike) for p in flat.rule.names):
            out |= tensors_of(flat.rule, layout)
    return frozenset(out)


def _is_there(pattern: Pattern, alike: Mapping[str, Sequence[str]]) -> bool:
    """Whether some name is spelled by the pattern. Digits of its own, as in `fc1`, tell names of one skeleton apart."""
    names = alike.get(skeleton_of(pattern), ())
    return any(regex(pattern).fullmatch(n) for n in names)


def may_be_absent(layout: FlatLayout) -> frozenset[str]:
    """The model tensors that a checkpoint of this layout may lack: every rule that stores them is `optional`."""
    some: set[str] = set()
    needed: set[str] = set()
    for flat in layout.rules:
        if not flat.rule.copy:
            (some if flat.rule.optional else needed).update(tensors_of(flat.rule, layout))
    return frozenset(some - needed)


def unmatched(layout: FlatLayout, found: Iterable[Found]) -> list[str]:
    """Representatives of names that no rule and no ignore of the layout can spell."""
    spelling: dict[str, list[Pattern]] = {}
    for pattern in [p for flat in layout.rules for p in flat.rule.names] + [p for i in layout.ignores for p in i.names]:
        spelling.setdefault(skeleton_of(pattern), []).append(pattern)
    return [n for kind, n in representatives(found).items() if not any(regex(p).fullmatch(n) for p in spelling.get(kind, ()))]


def files_pattern(layout: FlatLayout) -> list[Pattern]:
    """Every name that a file of this layout may have, those of all guards."""
    return [name for x in layout.files for name in x.names if isinstance(name, Pattern)]


def match_file(pattern: Pattern, file: str) -> dict[str, int] | None:
    """The ranks that a file's name spells. A checkpoint may be opened at an inner folder: the name may be a tail."""
    last = Pattern(_tail(pattern, file.count("/") + 1), pattern.span)
    hit = regex(last).fullmatch(file)
    return {k: int(v) for k, v in hit.groupdict().items()} if hit else None


def _tail(pattern: Pattern, depth: int) -> tuple[str | Hole, ...]:
    """The last `depth` path components of a pattern."""
    out: list[str | Hole] = []
    for part in reversed(pattern.parts):
        if isinstance(part, str) and "/" in part:
            pieces = part.split("/")
            while len(pieces) > 1:
                depth -= 1
                if depth == 0:
                    return (pieces[-1], *reversed(out)) if pieces[-1] else tuple(reversed(out))
                last = pieces.pop()
                out.append("/" + last)
            if pieces[0]:
                out.append(pieces[0])
        else:
            out.append(part)
    return tuple(reversed(out))


def ranks_of(layout: FlatLayout, found: Iterable[Found]) -> dict[str, int] | None:
    """Degrees read from the file names: one more than the highest rank. None where names do not fit."""
    return next(iter(rank_forms(layout, found)), None)


def rank_forms(layout: FlatLayout, found: Iterable[Found]) -> list[dict[str, int]]:
    """The degrees by each form of file name that all files fit and nothing in them contradicts.

    `mp_rank_00_001` is a form of stages and one of experts. What stands on the first or the last stage alone decides
    between them. Where each is contradicted, the first is taken: what it lacks is reported later.
    """
    names: dict[str, list[str]] = {}
    for item in found:
        names.setdefault(item.file, []).append(item.name)
    fits: dict[tuple[str, ...], tuple[Pattern, dict[str, int]]] = {}
    for pattern in files_pattern(layout):
        ranks: dict[str, int] = {}
        for file in names:
            hit = match_file(pattern, file)
            if hit is None:
                break
            for rank, value in hit.items():
                ranks[rank] = max(ranks.get(rank, 0), value + 1)
        else:
            fits.setdefault(tuple(sorted(ranks)), (pattern, ranks))
    several = list(fits.values())
    if len(several) > 1:
        several = [fit for fit in several if not _contradicted(layout, names, *fit)] or several[:1]
    return [ranks for _, ranks in several]


def _contradicted(layout: FlatLayout, names: Mapping[str, Sequence[str]], pattern: Pattern, ranks: Mapping[str, int]) -> bool:
    """Whether, by this pattern, what is `on first` or `on last` is not in the files of that stage, all of them and, but for
    what has copies of that name, no others."""
    declared = layout.stages
    if declared is None:
        return False
    stages = {file: (match_file(pattern, file) or {}).get(declared.rank, 0) for file in names}
    copies = [regex(p) for flat in layout.rules if flat.rule.copy for p in flat.rule.names]
    for on, stage in (("first", 0), ("last", ranks.get(declared.rank, 1) - 1)):
        spelled = [regex(p) for flat in layout.rules if flat.rule.on == on and not flat.rule.copy for p in flat.rule.names]
        holding = {file for file, inside in names.items() if any(r.fullmatch(n) for r in spelled for n in inside)}
        copied = {file for file, inside in names.items() if not any(r.fullmatch(n) and not any(c.fullmatch(n) for c in copies) for r in spelled for n in inside)}
        there = {file for file, number in stages.items() if number == stage}
        if (holding and not (there <= holding)) or holding - there - copied:
            return True
    return False


def stages_of(layout: FlatLayout, found: Iterable[Found], bare: Iterable[str] = ()) -> Dealt | None:
    """What each stage holds in each turn, read from the names in each stage's files. None where files do not tell.

    A stage may hold nothing that stages divide, or nothing at all: `bare` are files without tensors. Where names count within a stage, stages follow
    each other, turn by turn. What `beyond` leaves undivided has names of its own: it comes last, in the stage whose files
    have it.
    """
    declared = layout.stages
    patterns = files_pattern(layout)
    if declared is None or not patterns:
        return None
    degrees = ranks_of(layout, found) or {}
    rules = [
        (p, h)
        for flat in layout.rules
        for p in flat.rule.names
        for h in p.parts
        if isinstance(h, Hole) and h.axis == declared.axis and (h.offset is None or declared.beyond is not None)
    ]
    spelled_turn = declared.interleave or ""
    owned: dict[tuple[int, int], set[int]] = {}  # by turn and stage
    beyond: dict[tuple[int, int], set[int]] = {}
    local = True
    ranks: dict[str, int | None] = {}

    def stage_of(file: str) -> int | None:
        if file not in ranks:
            spelled = next((h for p in patterns if (h := match_file(p, file)) is not None and h.keys() == degrees.keys()), {})
            ranks[file] = spelled.get(declared.rank)
        return ranks[file]

    spelling: dict[str, list[tuple[Pattern, Hole]]] = {}
    for pattern, hole in rules:
        spelling.setdefault(skeleton_of(pattern), []).append((pattern, hole))
    kinds = {name: kind for kind, names in kinds_of(found).items() for name in names if kind in spelling}
    for item in found:
        rank = stage_of(item.file)
        if rank is None:
            return None
        owned.setdefault((0, rank), set())
        for pattern, hole in spelling.get(kinds.get(item.name, ""), ()):
            hit = regex(pattern).fullmatch(item.name)
            if hit:
                place = int(hit.groupdict().get(spelled_turn, 0)), rank
                (owned if hole.offset is None else beyond).setdefault(place, set()).add(int(hit[declared.axis]))
                local = local and (hole.rank is not None or hole.offset is not None)
                break
    if not any(owned.values()):
        return None
    for file in bare:
        if (rank := stage_of(file)) is not None:
            owned.setdefault((0, rank), set())
    turns = 1 + max(turn for turn, _ in (*owned, *beyond))
    stages: list[list[tuple[int, ...]]] = [[] for _ in range(1 + max(rank for _, rank in owned))]
    if any((0, rank) not in owned for rank in range(len(stages))):
        return None  # a stage without files
    at = 0
    for turn in range(turns):
        for rank, stage in enumerate(stages):
            held = owned.get((turn, rank), set())
            n = max(held, default=-1) + 1
            stage.append(tuple(range(at, at + n) if local else sorted(held)))
            at += n
    for (turn, rank), numbers in beyond.items():
        stages[rank][turn] += tuple(range(at, at + 1 + max(numbers)))
    return tuple(map(tuple, stages))


def turns_of(layout: FlatLayout, found: Iterable[Found]) -> dict[str, int]:
    """The parameter by which stages are interleaved, with as many turns as names spell. Empty where none does."""
    declared = layout.stages if layout.stages is not None and layout.stages.interleave is not None else None
    name = declared.interleave if declared else None
    patterns = [p for flat in layout.rules for p in flat.rule.names if any(isinstance(h, Hole) and h.axis == name for h in p.parts)]
    hits = [hit for each in {f.name for f in found} if patterns for p in patterns if (hit := regex(p).fullmatch(each))]
    return {name: 1 + max(int(hit[name]) for hit in hits)} if name is not None and hits else {}


