"""Stacked tensors, one by one: `layers[3].mlp.weight` is the part of `layers.mlp.weight` at index 3 of its first axis.

Distributed checkpoints keep the layers of a model, or its experts, in one tensor. Mappings and plans know each part by
its own name, in which the index stands in brackets where it belongs; no file holds such a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from math import prod

from ..fault import Fault
from .window import Entry, along

MOST_PARTS = 1 << 20  # far beyond the layers and experts of any model
INDEX = re.compile(r"\[(\d+)\]")
_PLACE = re.compile(r"\[\{[^{}]*\}\]")


def stacked_name(name: str) -> tuple[str, tuple[int, ...]]:
    """The name of the tensor that holds a part, and the part's index in it; `()` for a tensor that is not stacked."""
    return INDEX.sub("", name), tuple(int(i) for i in INDEX.findall(name))


def has_indices(pattern: str) -> bool:
    """Whether a name pattern has holes in brackets."""
    return _PLACE.search(pattern) is not None


def by_index(entries: Sequence[Entry], patterns: Iterable[str]) -> tuple[Entry, ...]:
    """The entries, with each stacked tensor that some pattern spells by its parts replaced by these.

    A tensor with fewer axes than the pattern has indices stays as it is.
    """
    forms = [_form(pattern) for pattern in dict.fromkeys(patterns) if has_indices(pattern)]
    out: list[Entry] = []
    for entry in entries:
        out += next((parts for form in forms if (parts := _parts(entry, form))), [entry])
    return tuple(out)


def _form(pattern: str) -> re.Pattern[str]:
    """A stacked tensor's name, in groups between which indices stand."""
    pieces = [re.split(r"\{[^{}]*\}", piece) for piece in _PLACE.split(pattern)]
    return re.compile("".join(f"({'[0-9]+'.join(map(re.escape, piece))})" for piece in pieces))


def _parts(entry: Entry, form: re.Pattern[str]) -> list[Entry]:
    hit = form.fullmatch(entry.name)
    axes = form.groups - 1
    if hit is None or len(entry.shape) < axes:
        return []
    if prod(entry.shape[:axes]) > MOST_PARTS:  # which costs a file nothing to say: of a tensor without elements, or with a stride of 0
        raise Fault(
            "bad-shape", f"`{entry.name}` has the shape {list(entry.shape)}, whose first {axes} axes would be {prod(entry.shape[:axes]):,} tensors",
            help="the file is damaged: copy or save it again",
        )  # fmt: skip
    start, *rest = hit.groups()
    return [
        Entry(start + "".join(f"[{i}]{text}" for i, text in zip(index, rest, strict=True)), entry.file, part)
        for index, part in along(entry.window, axes).items()
    ]
