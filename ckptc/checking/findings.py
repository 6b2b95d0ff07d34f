"""What was found of two sides in; the records that say it out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..runtime.checking.compare import Gap, Pair
from ..runtime.checking.elements import index_of
from ..runtime.checking.locate import Located, Lost
from ..runtime.files.window import Entry
from .report import Difference, Place, Side
from .sides import Read, Sides

MOST_LISTED = 5


def side_record(own: Read) -> Side:
    """How a checkpoint was read: its layout, its degrees, and the parameters that are not at their defaults."""
    side = own.side
    changed = tuple((name, side.params[name]) for name in side.changed if name in side.params)
    return Side(str(own.checkpoint.path), own.checkpoint.format, side.layout, tuple((n, v) for n, v in side.ranks.items() if v > 1), changed)


def lost(own: Read, missing: Sequence[Lost], side: str, explained: Mapping[int, str]) -> list[Difference]:
    """Tensors that are not there; those of a file that is not there, together."""
    out: list[Difference] = []
    files: dict[str, list[Lost]] = {}
    for each in missing:
        if each.file and not each.file_there:
            files.setdefault(each.file, []).append(each)
            continue
        place = Place(each.name, each.file, shape=own.located.shape(each.number))
        out.append(_of(side, "missing", ", ".join(_tensors(own, each.number)), place, explained.get(each.number, "")))
    for file, held in files.items():
        names = ", ".join(f"`{x.name}`" for x in held[:MOST_LISTED]) + (f" and {len(held) - MOST_LISTED} more" if len(held) > MOST_LISTED else "")
        out.append(_of(side, "missing-file", "", Place(file), f"it should hold {len(held)} tensors: {names}"))
    return out


def extra(entry: Entry, explanation: str, side: str = "target") -> Difference:
    """A tensor for which the layout has no place, or the source no counterpart."""
    return _of(side, "extra", "", Place(entry.name, entry.file, entry.dtype, entry.shape), explanation)


def misshapen(own: Read, number: int, side: str, explanation: str) -> Difference:
    """A tensor of another shape than its layout says."""
    entry = own.located.entries[number]
    assert entry is not None
    wanted = Place(entry.name, entry.file, entry.dtype, own.located.shape(number))
    found = Place(entry.name, entry.file, entry.dtype, entry.shape)
    return Difference("shape", side, ", ".join(_tensors(own, number)), wanted, found, explanation=explanation)


def differs(sides: Sides, pair: Pair, gap: Gap, explanation: str, setting: str) -> Difference:
    """A tensor with other elements."""
    source = _place(pair.source, gap.source, gap.first_source, gap.source_value if not gap.cannot else None)
    target = _place(pair.target, gap.number, gap.first_target, gap.target_value if not gap.cannot else None)
    names = ", ".join(sorted(gap.tensors, key=lambda n: -gap.tensors[n])) or ", ".join(_tensors(sides.target, gap.number))
    return Difference(
        "dtype" if gap.cannot else "values", "target", names, source, target, gap.compared, gap.different, gap.max_abs, gap.max_ulps,
        explanation or gap.cannot, setting,
    )  # fmt: skip


def _of(side: str, kind: str, tensor: str, place: Place, explanation: str) -> Difference:
    return Difference(kind, side, tensor, place if side == "source" else None, place if side == "target" else None, explanation=explanation)


def _place(located: Located, number: int, offset: int, value: int | float | str | None) -> Place:
    entry = located.entries[number]
    shape = located.shape(number)
    return Place(located.names[number], located.files[number], entry.dtype if entry is not None else "", shape, index_of(shape, offset), value)


def _tensors(own: Read, number: int) -> list[str]:
    """The tensors of the model that a stored one has parts of."""
    start = own.located.family(number).start
    rule = next(r for r in own.rules if r.family.start == start)
    return list(dict.fromkeys(p.tensor for p in rule.pieces if p.tensor))
