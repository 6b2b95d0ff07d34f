"""The families of the mappings that ship, as they are kept: each model and layout is read when it is asked for.

What is kept is a table of contents, with the signs by which layouts are told apart, and each model and layout. Where
nothing is kept, or a part is damaged, the mapping files are parsed and linked, which comes to the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from typing import Any, TypeVar

from ..compiler.link import flat
from ..compiler.link.flat import Family, FlatLayout
from ..dsl import tree
from . import kept
from .packing import pack, unpack
from .signs import SIGNS, Signs, signs_of

NAME = "shipped"
NODES = {name: each for module in (tree, flat) for name, each in vars(module).items() if isinstance(each, type) and is_dataclass(each)}
Built = Sequence[Family]
Node = TypeVar("Node")


@dataclass(frozen=True)
class Listed:
    """A family in the table of contents: its layouts by their numbers there."""

    name: str
    layouts: tuple[int, ...]
    own: frozenset[str]
    ancestors: tuple[str, ...]
    lacking: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Contents:
    """The layouts' names and signs; parts are the contents, then each layout, then each family's model."""

    layouts: tuple[tuple[str, Signs], ...]
    families: tuple[Listed, ...]


TABLE: dict[str, type] = {each.__name__: each for each in (Signs, Listed, Contents)}


def families(made_of: Sequence[str], build: Callable[[], Built]) -> tuple[Family, ...]:
    """The families that `build` parses and links of texts `made_of`, or what was kept of them."""
    key = kept.key_of(*made_of)
    parts = kept.recall(NAME, key)
    if parts:
        try:
            return _read(parts, build)
        except (ValueError, LookupError, TypeError, AttributeError):
            pass  # damaged: made anew
    built = tuple(build())
    layouts = _layouts(built)
    numbers = {id(layout): number for number, layout in enumerate(layouts)}
    listed = [Listed(f.name, tuple(numbers[id(x)] for x in f.layouts), f.own, f.ancestors, tuple(f.lacking.items())) for f in built]
    contents = Contents(tuple((x.name, signs_of(x)) for x in layouts), tuple(listed))
    kept.keep(NAME, key, [pack(contents, TABLE), *(pack(x, NODES) for x in layouts), *(pack(f.model, NODES) for f in built)])
    return built


def _layouts(built: Built) -> list[FlatLayout]:
    """Each once: families share them."""
    return list({id(layout): layout for family in built for layout in family.layouts}.values())


def _read(parts: Sequence[kept.Part], build: Callable[[], Built]) -> tuple[Family, ...]:
    contents = unpack(parts[0].data(), TABLE)
    count = len(contents.layouts)
    if len(parts) != 1 + count + len(contents.families):
        raise ValueError("parts are missing")
    again: list[Built] = []

    def anew() -> Built:
        """What a damaged part was made of."""
        again[:] = again or [build()]
        return again[0]

    def layout(number: int) -> dict[str, Any]:
        return vars(_whole(parts[1 + number], FlatLayout, lambda: _layouts(anew())[number]))

    def model(number: int) -> dict[str, Any]:
        return {"model": _whole(parts[1 + count + number], tree.Model, lambda: anew()[number].model)}

    layouts = [_later(KeptLayout, partial(layout, number), {"name": name, SIGNS: signs}) for number, (name, signs) in enumerate(contents.layouts)]
    return tuple(
        _later(
            KeptFamily, partial(model, number),
            {"name": each.name, "layouts": tuple(layouts[i] for i in each.layouts), "own": each.own, "ancestors": each.ancestors, "lacking": dict(each.lacking), "bases": ()},
        )
        for number, each in enumerate(contents.families)
    )  # fmt: skip


def _whole(part: kept.Part, kind: type[Node], anew: Callable[[], Node]) -> Node:
    try:
        node = unpack(part.data(), NODES)
    except ValueError:
        return anew()
    return node if type(node) is kind else anew()


class _Later:
    """A field that is there, with all the others, once it is read."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, node: Any, owner: type) -> Any:
        if node is None:
            raise AttributeError(self.name)
        vars(node).update(vars(node).pop("_later")())
        return vars(node)[self.name]


class KeptLayout(FlatLayout):
    """A layout of which only the name, and the signs, are read at first."""


class KeptFamily(Family):
    """A family whose model is read when it is asked for."""


for _kind, _at_once in ((KeptLayout, {"name"}), (KeptFamily, {"name", "layouts", "own", "ancestors", "lacking", "bases"})):
    for _each in {field.name for field in fields(_kind)} - _at_once:
        setattr(_kind, _each, _Later(_each))


def _later(kind: type[Node], read: Callable[[], dict[str, Any]], known: dict[str, Any]) -> Node:
    node = kind.__new__(kind)
    vars(node).update(known, _later=read)
    return node
