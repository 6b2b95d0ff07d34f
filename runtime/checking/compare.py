"""Two located sides and their rules in; counts, and what differs of each stored tensor of the target, out.

Elements are compared bit by bit, a bounded number at a time. Where the dtypes differ, or a rule calculates, the source's are
first made what a conversion defines (see `numbers`); one NaN is then as good as another.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field

import numpy as np

from ..files.decode_window import decoded_to
from ..files.window import ITEM_BYTES, Window, row_major
from .elements import Files, summed, take
from .locate import Located
from .numbers import Array, apart, bits_of, can_cast, cast, shown, unequal
from .overlaps import Block, Overlaps, chunks

Value = int | float | str


@dataclass
class Counts:
    """In elements of the target. `equal` and `copies` are those that are equal, of the first copy and of further ones. Of
    all of these `rounded` went to another dtype, `calculated` through a rule's arithmetic, and `decoded` are stored as codes
    and scales in the source. `padding` belongs to no model element; `filled` of it are not as the layout says."""

    equal: int = 0
    copies: int = 0
    padding: int = 0
    rounded: int = 0
    calculated: int = 0
    different: int = 0
    filled: int = 0
    decoded: int = 0


@dataclass
class Gap:
    """What differs in one stored tensor of the target. Offsets are row-major in the stored tensors of both sides."""

    number: int
    source: int
    compared: int = 0
    different: int = 0
    first_target: int = 0
    first_source: int = 0
    source_value: Value = 0
    target_value: Value = 0
    max_abs: float = 0.0
    max_ulps: int | None = 0
    tensors: dict[str, int] = field(default_factory=dict)  # of the model, how many elements of each differ
    copy: bool = False
    first: tuple[int, int] | None = None
    last_target: int = 0
    cannot: str = ""  # why elements cannot be compared at all


@dataclass(frozen=True, eq=False)
class Pair:
    """Both sides of a comparison. `most`: how many elements are compared at once."""

    source: Located
    target: Located
    overlaps: Overlaps
    files: Files
    most: int

    def source_window(self, number: int, dtype: str) -> Window | None:
        """Of a source's tensor; one that is decoded for a target of `dtype` is rounded to that."""
        window = _window(self.source, number)
        return window if window is None else decoded_to(window, dtype)

    def target_window(self, number: int) -> Window | None:
        return _window(self.target, number)


def _window(side: Located, number: int) -> Window | None:
    entry = side.entries[number]
    return entry.window if entry is not None and number not in side.misshapen else None


def compare(
    pair: Pair, counts: Counts, *, only: Container[int] | None = None, rules: Iterable[int] | None = None, only_copies: bool = False,
    tick: Callable[[int], None] | None = None,
) -> dict[int, Gap]:  # fmt: skip
    """What differs, by the number of the target's tensor. Tensors that a side lacks, or has in another shape, are left out.

    `rules` and `only` restrict it to some of the target's rules and tensors. With `only_copies` further copies alone are
    compared; it is how a side is compared with itself. `tick` is told how many bytes of the target are done.
    """
    gaps: dict[int, Gap] = {}
    for number in range(len(pair.overlaps.targets)) if rules is None else rules:
        for block in pair.overlaps.of(number, only_copies):
            if only is not None and block.target not in only:
                continue
            window = pair.target_window(block.target)
            if window is None:
                continue
            for part in chunks(block, pair.most):
                if part.padding:
                    _padding(pair, part, window, counts)
                else:
                    _part(pair, part, window, counts, gaps)
                if tick is not None:
                    tick(part.count * ITEM_BYTES[window.dtype])
    return gaps


def _padding(pair: Pair, part: Block, window: Window, counts: Counts) -> None:
    counts.padding += part.count
    source = pair.source_window(part.source, window.dtype) if part.source >= 0 else None
    if not part.zeros and source is None:
        return  # a mean, or of a tensor that the source lacks
    found = take(pair.files, window, part.target_base, part.target_offsets)
    if source is None:
        wrong = found != np.zeros(1, bits_of(window.dtype))[0]
    elif not can_cast(source.dtype, window.dtype):
        return
    else:
        wanted = cast(take(pair.files, source, part.source_base, part.source_offsets), source.dtype, window.dtype, part.scale, part.shift)
        wrong = unequal(wanted, found, window.dtype, source.dtype == window.dtype)
    counts.filled += int(wrong.sum())


def _part(pair: Pair, part: Block, window: Window, counts: Counts, gaps: dict[int, Gap]) -> None:
    source = pair.source_window(part.source, window.dtype)
    if source is None:
        return
    if not can_cast(source.dtype, window.dtype):
        gap = gaps.setdefault(part.target, Gap(part.target, part.source))
        gap.cannot = f"{source.dtype} to {window.dtype} is no cast that is defined"
        gap.compared += part.count
        gap.different += part.count
        counts.different += part.count
        return
    calculates = (part.scale, part.shift) != (1.0, 0.0)
    exact = source.dtype == window.dtype and not calculates and source.coded is None
    read = take(pair.files, source, part.source_base, part.source_offsets)
    wanted = cast(read, source.dtype, window.dtype, part.scale, part.shift)
    found = take(pair.files, window, part.target_base, part.target_offsets)
    differ = unequal(wanted, found, window.dtype, exact)
    wrong = int(np.count_nonzero(differ))
    right = part.count - wrong
    if part.copy:
        counts.copies += right
    else:
        counts.equal += right
    counts.rounded += right if source.dtype != window.dtype else 0
    counts.calculated += right if calculates else 0
    counts.decoded += right if source.coded is not None else 0
    if wrong:
        counts.different += wrong
        _note(gaps.setdefault(part.target, Gap(part.target, part.source)), part, window.dtype, differ, wanted, found)
    elif part.target in gaps:
        gaps[part.target].compared += part.count


def _note(gap: Gap, part: Block, dtype: str, differ: Array, wanted: Array, found: Array) -> None:
    gap.compared += part.count
    gap.different += int(np.count_nonzero(differ))
    gap.tensors[part.tensor] = gap.tensors.get(part.tensor, 0) + int(np.count_nonzero(differ))
    gap.copy = gap.copy or part.copy
    places = summed(part.target_base, part.target_offsets)[differ]
    where = int(places.argmin())
    if gap.first is None or int(places[where]) < gap.first_target:
        gap.first = (part.source, part.target)
        gap.source = part.source
        gap.first_target = int(places[where])
        gap.first_source = int(summed(part.source_base, part.source_offsets)[differ][where])
        gap.source_value, gap.target_value = shown(wanted[differ][where], dtype), shown(found[differ][where], dtype)
    gap.last_target = max(gap.last_target, int(places.max()))
    most, ulps = apart(wanted[differ], found[differ], dtype)
    gap.max_abs = max(gap.max_abs, most)
    gap.max_ulps = None if ulps is None or gap.max_ulps is None else max(gap.max_ulps, ulps)


def compare_windows(files: Files, one: Window, other: Window, most: int) -> Gap:
    """What differs between two tensors of one shape, in the dtype of the second."""
    one = decoded_to(one, other.dtype)
    gap, exact = Gap(0, 0), one.dtype == other.dtype
    offsets = tuple(np.arange(n, dtype=np.int64) * step for n, step in zip(one.shape, row_major(one.shape), strict=True))
    for part in chunks(Block("", 0, 0, offsets, 0, 0, offsets), most):
        wanted = cast(take(files, one, 0, part.source_offsets), one.dtype, other.dtype)
        found = take(files, other, 0, part.target_offsets)
        differ = unequal(wanted, found, other.dtype, exact)
        if differ.any():
            _note(gap, part, other.dtype, differ, wanted, found)
        else:
            gap.compared += part.count
    return gap
