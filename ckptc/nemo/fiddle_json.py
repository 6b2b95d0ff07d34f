"""A tree of calls in, the JSON that the library fiddle writes for it out. Nothing is imported or called here.

Every call, list and dictionary is an object of its own under `objects`, named by its kind and a number, and is referred to
by that name. A call is an object of fiddle's Config: its arguments are `items`, and an object of metadata holds what is
called and the arguments' names. What is reached from the root says by which path, so that a part can be loaded alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

VERSION = "0.0.1"
CONFIG = "fiddle._src.config"


@dataclass(frozen=True)
class Symbol:
    """Something that Python finds by name in a module: a class, a function, a constant."""

    module: str
    name: str

    @property
    def dotted(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Call:
    """A symbol and the arguments it is called with: plain values, symbols, lists of plain values, `{}`, or calls."""

    of: Symbol
    arguments: Mapping[str, Any]


@dataclass
class _Graph:
    objects: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, hint: str, made: dict[str, Any]) -> dict[str, str]:
        """A reference to a new object. Its name is its kind and the first number that is free."""
        number = 1
        while f"{hint}_{number}" in self.objects:
            number += 1
        name = f"{hint}_{number}"
        self.objects[name] = made
        self.counts[name] = 1
        return {"type": "ref", "key": name}


def serialise(root: Call) -> dict[str, Any]:
    """The whole document for one call, as fiddle 0.2 and 0.3 write it."""
    graph = _Graph()
    reference = _call(graph, root, "<root>")
    return {"root": reference, "objects": graph.objects, "refcounts": graph.counts, "version": VERSION}


def _value(graph: _Graph, value: Any, path: str) -> dict[str, Any]:
    match value:
        case Call():
            return _call(graph, value, path)
        case Symbol():
            return {**_symbol(value), "paths": [path]}
        case list():
            items = [[f"Index(index={at})", _value(graph, each, f"{path}[{at}]")] for at, each in enumerate(value)]
            return graph.add("list", {"type": _builtin("list"), "items": items, "metadata": None, "paths": [path]})
        case {}:
            if value:
                raise TypeError(f"{path}: only empty dictionaries are written")
            return graph.add("dict", {**_empty_dict(), "paths": [path]})
        case None | bool() | int() | float() | str():
            return {"type": "leaf", "value": value, "paths": [path]}
    raise TypeError(f"{path}: {type(value).__name__} is not written")


def _call(graph: _Graph, call: Call, path: str) -> dict[str, Any]:
    items = [[f"Attr(name={name!r})", _value(graph, value, f"{path}.{name}")] for name, value in call.arguments.items()]
    metadata = _metadata(graph, call)
    made = {"type": _symbol(Symbol(CONFIG, "Config")), "items": items, "metadata": metadata, "paths": [path]}
    return graph.add(_snake(call.of.name), made)


def _metadata(graph: _Graph, call: Call) -> dict[str, Any]:
    names = _tuple(graph, list(call.arguments))
    fields = {
        "fn_or_cls": _symbol(call.of),
        "argument_names": names,
        "argument_tags": graph.add("dict", _empty_dict()),
        "argument_history": graph.add("dict", _empty_dict()),
    }
    kind = _symbol(Symbol(CONFIG, "BuildableTraverserMetadata"))
    items = [[f"Attr(name={name!r})", value] for name, value in fields.items()]
    return graph.add("buildable_traverser_metadata", {"type": kind, "items": items, "metadata": kind})


def _tuple(graph: _Graph, texts: Sequence[str]) -> dict[str, Any]:
    """Texts as an object; an empty tuple stands where it is used."""
    items = [[f"Index(index={at})", text] for at, text in enumerate(texts)]
    made = {"type": _builtin("tuple"), "items": items, "metadata": None}
    return graph.add("tuple", made) if items else made


def _empty_dict() -> dict[str, Any]:
    return {"type": _builtin("dict"), "items": [], "metadata": {"type": _builtin("tuple"), "items": [], "metadata": None}}


def _symbol(symbol: Symbol) -> dict[str, Any]:
    return {"type": "pyref", "module": symbol.module, "name": symbol.name}


def _builtin(name: str) -> dict[str, Any]:
    return _symbol(Symbol("builtins", name))


def _snake(name: str) -> str:
    """`Llama2Config7B` as `llama2_config7_b`: an underscore before each capital that follows no capital."""
    return re.sub(r"([^_A-Z])([A-Z])", r"\1_\2", name).lower()
