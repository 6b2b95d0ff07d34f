"""Trees: plain values in which a `Leaf` stands for each tensor. What a torch file holds beside its tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from .pickle_names import Size

Path: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Leaf:
    """The place of the tensor called `name`."""

    name: str


def fill(tree: Any, tensors: Mapping[str, Any]) -> Any:
    """The tree with what `tensors` has for each leaf, by name."""
    match tree:
        case Leaf(name):
            return tensors[name]
        case dict():
            return {key: fill(item, tensors) for key, item in tree.items()}
        case list():
            return [fill(item, tensors) for item in tree]
        case tuple() if not isinstance(tree, Size):
            return tuple(fill(item, tensors) for item in tree)
    return tree


def leaves(tree: Any, at: Path = ()) -> Iterator[tuple[Path, Leaf]]:
    """Every leaf, with the keys that lead to it."""
    if isinstance(tree, Leaf):
        yield at, tree
    elif isinstance(tree, (dict, list, tuple)):
        for key, item in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(item, (*at, key))


def first_difference(one: Any, other: Any, at: Path = ()) -> Path | None:
    """The keys that lead to the first place where two trees differ; None where they are equal."""
    if one == other:
        return None
    if isinstance(one, dict) and isinstance(other, dict):
        alone = next((key for key in (*one, *other) if key not in one or key not in other), None)
        if alone is not None:
            return (*at, alone)
        pairs = [(key, one[key], other[key]) for key in one]
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        pairs = [(i, a, b) for i, (a, b) in enumerate(zip(one, other, strict=True))]
    else:
        return at
    return next((found for key, a, b in pairs if (found := first_difference(a, b, (*at, key))) is not None), at)
