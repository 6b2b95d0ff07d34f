"""Two arrays of the same elements in another order in; in which order, in words, out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .numbers import Array

Order = NDArray[np.int64]
SHOWN = 8


@dataclass(frozen=True)
class Marks:
    """What is known of the positions along one dimension: `parts` are (tensor of the model, first, how many), in order;
    `sizes` are those of the model's axes, in words."""

    parts: Sequence[tuple[str, int, int]] = ()
    sizes: Mapping[str, int] = field(default_factory=dict)


def reordered(wanted: Array, found: Array, marks: Sequence[Marks]) -> str:
    """In which order `found` has rows, columns or slices of `wanted`. Empty where it is none, or another difference."""
    if wanted.shape != found.shape or wanted.ndim == 0:
        return ""
    for axis in range(wanted.ndim):
        if wanted.shape[axis] < 2:
            continue
        one, two = _slices(wanted, axis), _slices(found, axis)
        order = _order(one, two)
        word = "elements" if wanted.ndim == 1 else "rows" if axis == 0 else "columns" if axis == wanted.ndim - 1 else f"slices of axis {axis}"
        if order is not None:
            return in_words(order, word, marks[axis] if axis < len(marks) else Marks())
        if wanted.ndim > 1 or len(one) > 8:
            shifted = _shift(one, two)
            if shifted:
                return f"{word} are shifted by {abs(shifted)} {'towards the end' if shifted > 0 else 'towards the beginning'}"
    return ""


def _slices(array: Array, axis: int) -> list[int]:
    """A hash of each slice along an axis."""
    turned = np.ascontiguousarray(np.moveaxis(array, axis, 0)).reshape(array.shape[axis], -1)
    return [hash(row.tobytes()) for row in turned]


def _order(wanted: Sequence[int], found: Sequence[int]) -> Order | None:
    """Which slice of `wanted` each of `found` is; equal ones stay where they are if they can. None where some is none."""
    if sorted(wanted) != sorted(found):
        return None
    order = np.full(len(found), -1, dtype=np.int64)
    for i, (a, b) in enumerate(zip(wanted, found, strict=True)):
        if a == b:
            order[i] = i
    places: dict[int, list[int]] = {}
    for i in range(len(wanted) - 1, -1, -1):
        if order[i] < 0:
            places.setdefault(wanted[i], []).append(i)
    for i in np.flatnonzero(order < 0).tolist():
        order[i] = places[found[i]].pop()
    return order


def _shift(wanted: Sequence[int], found: Sequence[int]) -> int:
    """By how many places most slices are moved; 0 where most are not, or not together."""
    first: dict[int, int] = {}
    for i, each in enumerate(wanted):
        first.setdefault(each, i)
    moves = [i - first[each] for i, each in enumerate(found) if each in first]
    if not moves:
        return 0
    best = max(set(moves), key=moves.count)
    return best if moves.count(best) >= len(found) - abs(best) - 1 and abs(best) * 2 < len(found) else 0


def in_words(order: Order, word: str, marks: Marks) -> str:
    """An order, `order[i]` being what stands at i, named by the first of what it may be."""
    n = len(order)
    if exchanged := _exchanged(order, marks):
        return exchanged
    if rotary := _rotary(order, word, marks):
        return rotary
    if (order == (order[0] + np.arange(n)) % n).all():
        return f"{word} are shifted in a circle, by {int(order[0])} of {n}"
    if (order == np.arange(n)[::-1]).all():
        return f"{word} are in reverse order"
    moved = np.flatnonzero(order != np.arange(n))
    size = _block(order)
    if size > 1 or len(moved) > 2:
        blocks = (order[::size] // size).tolist()
        turned = _turned(blocks)
        named = next((f" (`{name}`)" for name, extent in marks.sizes.items() if extent == size and size > 1), "")
        what = f"blocks of {size} {word}{named}" if size > 1 else word
        if turned:
            return f"{what} are dealt out otherwise: {turned[0]} by {turned[1]} instead of {turned[1]} by {turned[0]}"
        if parts := _parts(order, marks):
            return parts
        return f"{what} are in another order: {', '.join(map(str, blocks[:SHOWN]))}{', ...' if len(blocks) > SHOWN else ''}"
    return f"{word} {int(moved[0])} and {int(moved[1])} are exchanged"


def _exchanged(order: Order, marks: Marks) -> str:
    """Two tensors of the model that stand in each other's places."""
    by_name: dict[str, list[tuple[int, int]]] = {}
    for name, at, size in marks.parts:
        by_name.setdefault(name, []).append((at, size))
    names = list(by_name)
    for i, one in enumerate(names):
        for two in names[i + 1 :]:
            if [s for _, s in by_name[one]] != [s for _, s in by_name[two]]:
                continue
            swapped = np.arange(len(order))
            for (a, size), (b, _) in zip(by_name[one], by_name[two], strict=True):
                swapped[a : a + size], swapped[b : b + size] = np.arange(b, b + size), np.arange(a, a + size)
            if (order == swapped).all():
                return f"`{one}` and `{two}` are exchanged"
    return ""


def _rotary(order: Order, word: str, marks: Marks) -> str:
    """Halves of each head dealt out to pairs, or pairs to halves, in all heads or in some."""
    for name, size in marks.sizes.items():
        if size < 4 or size % 2 or len(order) % size or name not in ("dim", "head_dim"):
            continue
        blocks = order.reshape(-1, size)
        firsts = blocks.min(axis=1)
        pairs = np.arange(size).reshape(2, -1).T.ravel()
        halves = np.arange(size).reshape(-1, 2).T.ravel()
        plain = (blocks == firsts[:, None] + np.arange(size)).all(axis=1)
        if plain.all():
            continue
        where = " in some heads" if plain.any() else ""
        if ((blocks == firsts[:, None] + pairs).all(axis=1) | plain).all():
            return f"{word} of each head{where} are interleaved: rotary pairs stand side by side, and should be in two halves"
        if ((blocks == firsts[:, None] + halves).all(axis=1) | plain).all():
            return f"{word} of each head{where} are in two halves: rotary pairs should stand side by side (interleaved)"
    return ""


def _block(order: Order) -> int:
    """The largest size of aligned blocks that stay whole."""
    n = len(order)
    breaks = np.flatnonzero(np.diff(order) != 1) + 1
    size = int(np.gcd.reduce(np.concatenate([breaks, [n], order[np.concatenate([[0], breaks])]])))
    return max(1, size)


def _turned(blocks: list[int]) -> tuple[int, int] | None:
    """Rows and columns, where blocks are numbered along the columns instead of along the rows."""
    n = len(blocks)
    for rows in range(2, n // 2 + 1):
        if n % rows == 0 and blocks == np.arange(n).reshape(rows, -1).T.ravel().tolist():
            return n // rows, rows
    return None


def _parts(order: Order, marks: Marks) -> str:
    """Joined tensors in another order, named as they stand."""
    owner = np.full(len(order), -1, dtype=np.int64)
    for number, (_, at, size) in enumerate(marks.parts):
        owner[at : at + size] = number
    held = owner[order]
    if (held < 0).any():
        return ""
    starts = np.concatenate([[0], np.flatnonzero((np.diff(order) != 1) | (np.diff(held) != 0)) + 1])
    names = [marks.parts[number][0] for number in held[starts].tolist()]
    wanted = [name for name, _, _ in marks.parts]
    if len(names) > 3 * SHOWN or sorted(names) != sorted(wanted) or len(set(names)) < 2:
        return ""
    return f"parts are in the order {', '.join(names[:SHOWN])}{', ...' if len(names) > SHOWN else ''}, and should be {', '.join(wanted[:SHOWN])}{', ...' if len(wanted) > SHOWN else ''}"
