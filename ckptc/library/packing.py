"""Trees of frozen dataclasses to plain data, for JSON, and back: what is read can become nothing but such trees.

The data are constants, and things made of them, one after the other: tuples, sets, and nodes of known classes by their
number. Each is made of what stands before it, so that shared parts are kept once and nothing goes in a circle. A node's
parts must be of the types that its class declares. Anything else is a `ValueError`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

SCALARS = (str, int, float, bool, NoneType)
TUPLE, SET = 0, 1
Packed = dict[str, Any]
Types = dict[type, "Types | None"]  # what a place may hold, and for tuples and sets what these may


def pack(root: Any, known: Mapping[str, type]) -> Packed:
    """Raises `ValueError` for what holds other things than nodes of `known` classes, tuples, sets and scalars."""
    return _Packer(known).packed(root)


class _Packer:
    def __init__(self, known: Mapping[str, type]) -> None:
        self.known = known
        self.constants: dict[tuple[type, Any], int] = {}
        self.classes: dict[str, int] = {}
        self.rows: list[list[int]] = []
        self.seen: dict[tuple[Any, ...], int] = {}
        self.objects: dict[int, int] = {}  # the same by identity: shared parts are walked once

    def packed(self, root: Any) -> Packed:
        at = self._add(root)  # constants come first: things made are numbered from -1 downwards until their number is known
        count = len(self.constants)
        rows = [[kind, *(part if part >= 0 else count - part - 1 for part in parts)] for kind, *parts in self.rows]
        return {"classes": list(self.classes), "constants": [value for _, value in self.constants], "rows": rows, "root": at if at >= 0 else count - at - 1}

    def _add(self, value: Any) -> int:
        kind = type(value)
        if kind in SCALARS:
            return self.constants.setdefault((kind, value), len(self.constants))
        if id(value) not in self.objects:
            self.objects[id(value)] = self._new(kind, value)
        return self.objects[id(value)]

    def _new(self, kind: type, value: Any) -> int:
        if kind is tuple:
            return self._made(TUPLE, value)
        if kind is frozenset:
            return self._made(SET, sorted(value, key=repr))
        if self.known.get(kind.__name__) is not kind:
            raise ValueError(f"a {kind.__name__} is not kept")
        number = self.classes.setdefault(kind.__name__, len(self.classes) + 2)
        return self._made(number, [getattr(value, field.name) for field in fields(kind)])

    def _made(self, kind: int, parts: Sequence[Any]) -> int:
        row = (kind, *map(self._add, parts))
        if row not in self.seen:
            self.rows.append(list(row))
            self.seen[row] = -len(self.rows)
        return self.seen[row]


def unpack(data: Packed, known: Mapping[str, type]) -> Any:
    """The tree. Raises `ValueError` for data that `pack` does not make."""
    try:
        values = list(data["constants"])
        if not all(type(value) in SCALARS for value in values):
            raise ValueError("a constant is none")
        makers: list[Callable[[Sequence[Any]], Any]] = [tuple, frozenset, *(_maker(known[name]) for name in data["classes"])]
        get = values.__getitem__
        for kind, *parts in data["rows"]:
            values.append(makers[kind]([*map(get, parts)]))
        return values[data["root"]]
    except (KeyError, IndexError, TypeError, AttributeError) as problem:
        raise ValueError(f"not packed: {problem}") from None


_MAKERS: dict[type, Callable[[Sequence[Any]], Any]] = {}


def _maker(kind: type) -> Callable[[Sequence[Any]], Any]:
    """Makes nodes of a class from their parts in order, each held to its declared type."""
    if kind in _MAKERS:
        return _MAKERS[kind]
    names = [field.name for field in fields(kind)]
    scope = vars(sys.modules[kind.__module__])
    allowed = [_types(eval(str(field.type), scope)) for field in fields(kind)]
    new: Any = kind.__new__
    put = object.__setattr__

    def make(parts: Sequence[Any]) -> Any:
        for part, types in zip(parts, allowed, strict=True):
            inner = types[type(part)]
            if inner is not None:
                _hold(part, inner)
        node = new(kind)
        put(node, "__dict__", dict(zip(names, parts, strict=True)))
        return node

    _MAKERS[kind] = make
    return make


def _hold(parts: Any, types: Types) -> None:
    for part in parts:
        inner = types[type(part)]
        if inner is not None:
            _hold(part, inner)


def _either(hints: Iterable[Any]) -> Types:
    """What one of several allows; of tuples, what may be in any of them."""
    found: Types = {}
    for hint in hints:
        for kind, inner in _types(hint).items():
            found[kind] = (found.get(kind) or {}) | inner if inner is not None else inner
    return found


def _types(hint: Any) -> Types:
    """What a declared type allows."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return _either(get_args(hint))
    if origin in (tuple, frozenset):
        return {origin: _either(each for each in get_args(hint) if each is not ...)}
    if hint is None:
        return {NoneType: None}
    if not isinstance(hint, type):
        raise ValueError(f"{hint} is not kept")
    return {hint: None, int: None} if hint is float else {hint: None}
