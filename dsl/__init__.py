"""The mapping language: text to tree and back, and diagnostics to text. Imports nothing of ours.

`parse` makes the frozen nodes of `ckptc.dsl.tree`; `format_text` is `ckptc fmt`; `show` prints one
node; `render` words diagnostics for a person. Each name below is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .diagnostic import Diagnostic, Label, MappingError
    from .formatting.format import format_mapping, format_text
    from .formatting.show import show
    from .nearest import nearest
    from .parsing.parse import parse, parse_expr
    from .render import render, to_record
    from .tree import Mapping, Span

_HOMES = {
    "Diagnostic": "diagnostic",
    "Label": "diagnostic",
    "Mapping": "tree",
    "MappingError": "diagnostic",
    "Span": "tree",
    "format_mapping": "formatting.format",
    "format_text": "formatting.format",
    "nearest": "nearest",
    "parse": "parsing.parse",
    "parse_expr": "parsing.parse",
    "render": "render",
    "show": "formatting.show",
    "to_record": "render",
}

__all__ = [
    "Diagnostic",
    "Label",
    "Mapping",
    "MappingError",
    "Span",
    "format_mapping",
    "format_text",
    "nearest",
    "parse",
    "parse_expr",
    "render",
    "show",
    "to_record",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
