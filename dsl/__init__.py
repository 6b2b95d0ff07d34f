"""The mapping language: text to tree and back, and diagnostics to text. Imports nothing of ours.

`parse` makes the frozen nodes of `ckptc.dsl.tree`; `format_text` is `ckptc fmt`; `show` prints one
node; `render` words diagnostics for a person. lark is imported by the first parse, not by this.
"""

from .diagnostic import Diagnostic, Label, MappingError
from .formatting.format import format_mapping, format_text
from .formatting.show import show
from .nearest import nearest
from .parsing.parse import parse, parse_expr
from .render import render, to_record
from .tree import Mapping, Span

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
