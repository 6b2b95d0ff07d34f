"""The mapping language: text to tree and back, and diagnostics to text. It imports nothing of ours but `error`.

`parse` makes the frozen nodes of `ckptc.dsl.tree`, `format_text` brings a text into its canonical form, and `show` prints
one node. `render.render` words diagnostics. Each name below is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .diagnostic import Diagnostic, Label, MappingError
    from .formatting.format import format_mapping, format_text
    from .formatting.show import show
    from .parsing.parse import parse, parse_expr
    from .tree import Mapping, Span

_HOMES = {
    "Diagnostic": "diagnostic",
    "Label": "diagnostic",
    "Mapping": "tree",
    "MappingError": "diagnostic",
    "Span": "tree",
    "format_mapping": "formatting.format",
    "format_text": "formatting.format",
    "parse": "parsing.parse",
    "parse_expr": "parsing.parse",
    "show": "formatting.show",
}

__all__ = [
    "Diagnostic",
    "Label",
    "Mapping",
    "MappingError",
    "Span",
    "format_mapping",
    "format_text",
    "parse",
    "parse_expr",
    "show",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module `{__name__}` has no attribute `{name}`")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
