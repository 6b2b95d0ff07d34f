"""Text in, syntax tree out; every fault is a diagnostic. The only module that knows lark."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from ..diagnostic import Diagnostic, Label, MappingError
from ..tree import Expr, Mapping, Span
from .build import Build
from .syntax import KINDS, stray, unexpected

# Deeper than any mapping needs, and shallow enough for every recursive reader of the tree.
_DEEPEST = 120
_WORD_END = "(?![A-Za-z0-9_.])"


def parse(text: str, file: str = "<text>") -> Mapping:
    """The tree of a mapping file; `file` names it in spans. Raises only `MappingError`."""
    mapping = _parse(text, "mapping", Span(file, 1, 1))
    assert isinstance(mapping, Mapping)
    return mapping


def parse_expr(text: str, at: Span = Span("<text>", 1, 1)) -> Expr:  # noqa: B008
    """The tree of one scalar expression that stands at `at`. Raises only `MappingError`."""
    expr: Expr = _parse(text, "expr", at)
    return expr


@cache
def _grammar() -> Any:
    from lark import Lark

    return Lark(
        Path(__file__).with_name("grammar.lark").read_text(encoding="utf-8"),
        parser="lalr",
        start=["mapping", "expr"],
        propagate_positions=True,
        maybe_placeholders=True,
        edit_terminals=_whole_word,
    )


def _whole_word(term: Any) -> None:
    """Let a keyword match only a whole word, and before a name."""
    from lark.lexer import PatternRE

    if term.pattern.type == "str" and term.pattern.value.isalpha():
        term.pattern = PatternRE(term.pattern.value + _WORD_END)
        term.priority = 2


def _parse(text: str, start: str, at: Span) -> Any:
    from lark import Tree, UnexpectedCharacters, UnexpectedToken

    padded = "\n" * (at.line - 1) + " " * (at.column - 1) + text
    try:
        root = _grammar().parse(padded, start=start)
    except UnexpectedToken as error:
        found = "" if error.token.type == "$END" else str(error.token)
        place = _end_of(padded, at) if not found else _token_span(error.token, at.file)
        raise MappingError(
            unexpected(padded, place, found, set(error.accepts or error.expected), _spellings())
        ) from None
    except UnexpectedCharacters as error:
        place = Span(at.file, error.line, error.column, error.line, error.column + 1)
        raise MappingError(stray(padded, place)) from None
    build = Build(at.file, parse_expr)
    finished: dict[int, Any] = {}
    depth: dict[int, int] = {}
    for node in root.iter_subtrees():  # children before their parents, without recursion
        children = [finished[id(child)] if isinstance(child, Tree) else child for child in node.children]
        deep = 1 + max((depth[id(child)] for child in node.children if isinstance(child, Tree)), default=0)
        if deep > _DEEPEST:
            fault = Diagnostic(
                "too-deep", "nested too deeply", (Label(build.span(node.meta)),), help="name a part of it"
            )
            raise MappingError(fault)
        finished[id(node)] = getattr(build, str(node.data))(node.meta, children)
        depth[id(node)] = deep
    if build.faults:
        raise MappingError(
            *sorted(build.faults, key=lambda fault: (fault.labels[0].span.line, fault.labels[0].span.column))
        )
    return finished[id(root)]


@cache
def _spellings() -> dict[str, str]:
    """How each fixed token is written."""
    spelled = {term.name: term.pattern.value.removesuffix(_WORD_END) for term in _grammar().terminals}
    return {name: word for name, word in spelled.items() if word.isalpha() or name not in KINDS}


def _token_span(token: Any, file: str) -> Span:
    return Span(file, token.line, token.column, token.end_line, token.end_column)


def _end_of(text: str, at: Span) -> Span:
    """One character past the text, or past the hole that an expression stands in."""
    if at.end_column:
        return Span(at.file, at.line, at.end_column, at.line, at.end_column + 1)
    lines = text.rstrip().split("\n")
    return Span(at.file, len(lines), len(lines[-1]) + 1, len(lines), len(lines[-1]) + 2)
