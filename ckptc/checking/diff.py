"""Two checkpoints in, what differs between them tensor by tensor, by names alone, out: `ckptc.diff`."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import prod
from pathlib import Path

from ..choices.arguments import parse_size
from ..hub import open_source
from ..runtime.checking.alone import explain_alone
from ..runtime.checking.compare import Gap, compare_windows
from ..runtime.checking.elements import Files, index_of
from ..runtime.checking.numbers import can_cast
from ..runtime.checkpoint.checkpoint import Checkpoint
from ..runtime.files.window import Entry
from .report import Diff, Difference, Place, Side

PER_ELEMENT, WHOLE = 128, 96  # bytes of working memory for each element that is compared, or held to be explained, at once
MOST_EXPLAINED = 256


def diff(a: str | Path | Checkpoint, b: str | Path | Checkpoint, *, explain: bool = True, memory: int | str = 512 << 20) -> Diff:
    """What differs between two checkpoints of the same names: names that only one has, shapes, dtypes, and bits.

    No layout is asked for. Tensors go by their names; where a name is in several files of a side, as in rank files, by file
    and name. Where dtypes differ, that is a difference, and values are compared after a cast to that of `b`. `memory` is the
    most working memory, in bytes or as a text. Raises `Fault` where one cannot be read.
    """
    left, right = (x if isinstance(x, Checkpoint) else open_source(x) for x in (a, b))
    bytes_ = parse_size(memory)
    by_file = any(n > 1 for side in (left, right) for n in Counter(e.name for e in side.entries).values())
    ours, theirs = ({(e.file if by_file else "", e.name): e for e in side.entries} for side in (left, right))
    found: list[Difference] = []
    tensors = elements = different = explained = 0
    with Files() as files:
        for key, one in ours.items():
            other = theirs.get(key)
            if other is None:
                found.append(Difference("missing", "target", "", None, _place(one)))
                continue
            if one.shape != other.shape:
                said = explain_alone(files, one, other, bytes_ // WHOLE) if explain and explained < MOST_EXPLAINED else ""
                explained += 1
                found.append(Difference("shape", "target", "", _place(one), _place(other), explanation=said))
                continue
            gap = compare_windows(files, one.window, other.window, max(1024, bytes_ // PER_ELEMENT)) if can_cast(one.dtype, other.dtype) else None
            if gap is not None and gap.different:
                said = explain_alone(files, one, other, bytes_ // WHOLE) if explain and explained < MOST_EXPLAINED else ""
                explained += 1
                different += gap.different
                found.append(_values(one, other, gap, said))
            if one.dtype != other.dtype:
                equal = " (its values are equal after a cast)" if gap is not None and not gap.different else ""
                found.append(Difference("dtype", "target", "", _place(one), _place(other), explanation=f"{one.dtype} became {other.dtype}{equal}"))
            elif gap is not None and not gap.different:
                tensors += 1
            elements += prod(one.shape) - (gap.different if gap is not None else 0)
        found += [Difference("extra", "target", "", None, _place(other)) for key, other in theirs.items() if key not in ours]
    sides = Side(str(left.path), left.format), Side(str(right.path), right.format)
    return Diff(*sides, different, tuple(found), (*left.notes, *right.notes), tensors, elements)


def _place(entry: Entry) -> Place:
    return Place(entry.name, entry.file, entry.dtype, entry.shape)


def _values(one: Entry, other: Entry, gap: Gap, explanation: str) -> Difference:
    index = index_of(one.shape, gap.first_target)
    source, target = (replace(_place(e), index=index, value=v) for e, v in ((one, gap.source_value), (other, gap.target_value)))
    return Difference("values", "target", "", source, target, gap.compared, gap.different, gap.max_abs, gap.max_ulps, explanation)
