"""Expression rules of the grammar in, index and scalar expression nodes out: the lower half of `Build`."""

from __future__ import annotations

import math
import re
from typing import Any, Protocol

from .. import tree
from ..diagnostic import Diagnostic, Label
from ..tree import Expr, Index, Span
from .pattern import unescape

_KEY_PARTS = re.compile(r'"[^"]*"|[A-Za-z0-9_]+')


class Place(Protocol):
    """Where lark says something stands; a token is also a `str`."""

    line: int
    column: int
    end_line: int
    end_column: int


class BuildExpressions:
    """Makes the expressions of one file and collects its faults."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[Diagnostic] = []

    def span(self, place: Place) -> Span:
        """The span of a rule or token; a rule that matched nothing stands at 1:1."""
        line, column = getattr(place, "line", 1), getattr(place, "column", 1)
        end_line, end_column = getattr(place, "end_line", line), getattr(place, "end_column", column)
        return Span(self.file, line, column, end_line, end_column)

    def fault(self, code: str, title: str, span: Span, label: str = "", help: str = "") -> None:
        self.faults.append(Diagnostic(code, title, (Label(span, label),), help=help))

    def text(self, token: Any) -> str:
        for char, at in unescape(token):
            if token[at] == "\\" and char not in '\\"':
                span = self.span(token)
                here = Span(self.file, span.line, span.column + at, span.line, span.column + at + 2)
                self.fault("syntax", f"unknown escape `\\{char}`", here, help='only `\\\\` and `\\"` are escapes')
        return "".join(char for char, _ in unescape(token))

    # --- index expressions

    def axis_ref(self, at: Place, parts: list[Any]) -> tree.AxisRef:
        return tree.AxisRef(str(parts[0]), self.span(at))

    def one(self, at: Place, parts: list[Any]) -> tree.One:
        if str(parts[0]) != "1":
            help = "name an axis and give it that size"
            self.fault("syntax", f"expected an axis or `1` instead of `{parts[0]}`", self.span(at), help=help)
        return tree.One(self.span(at))

    def group(self, at: Place, parts: list[Any]) -> tree.Sum:
        return tree.Sum(parts[0].terms, self.span(at))

    def sum(self, at: Place, parts: list[Any]) -> tree.Sum:
        return tree.Sum(tuple(parts), self.span(at))

    def term(self, at: Place, parts: list[Any]) -> tree.Term:
        return tree.Term(name_of(parts[0]), tuple(parts[1:]), self.span(at))

    def pad(self, at: Place, parts: list[Any]) -> tree.Pad:
        inner, (exact, amount), fill = parts
        first = inner.terms[0]
        bare = len(inner.terms) == 1 and first.label is None and len(first.factors) == 1
        operand: Index = first.factors[0] if bare else inner
        return tree.Pad(operand, amount, exact, fill or "zero", self.span(at))

    def amount(self, at: Place, parts: list[Any]) -> tuple[bool, Expr]:
        return parts[0] is not None, parts[1]

    def fill_zero(self, at: Place, parts: list[Any]) -> str:
        return "zero"

    def fill_repeat(self, at: Place, parts: list[Any]) -> str:
        return "repeat last"

    def fill_named(self, at: Place, parts: list[Any]) -> str:
        return str(parts[0])

    def copies(self, at: Place, parts: list[Any]) -> tree.Copies:
        return tree.Copies(parts[0], self.span(at))

    def slice(self, at: Place, parts: list[Any]) -> tree.Slice:
        return tree.Slice(parts[0], str(parts[1]), self.span(at))

    # --- scalar expressions

    def conditional(self, at: Place, parts: list[Any]) -> tree.Conditional:
        return tree.Conditional(parts[0], parts[1], parts[2], self.span(at))

    def binary(self, at: Place, parts: list[Any]) -> tree.Binary:
        return tree.Binary(str(parts[1]), parts[0], parts[2], self.span(at))

    def unary(self, at: Place, parts: list[Any]) -> tree.Unary:
        return tree.Unary(str(parts[0]), parts[1], self.span(at))

    def call(self, at: Place, parts: list[Any]) -> tree.Call:
        args = tuple(part for part in parts[1:] if part is not None)
        return tree.Call(str(parts[0]), args, self.span(at))

    def ref(self, at: Place, parts: list[Any]) -> tree.Ref:
        return tree.Ref(str(parts[0]), self.span(at))

    def key(self, at: Place, parts: list[Any]) -> tree.Key:
        return self._key(parts[0])

    def _key(self, token: Any) -> tree.Key:
        return tree.Key(tuple(part.strip('"') for part in _KEY_PARTS.findall(token)), self.span(token))

    def match(self, at: Place, parts: list[Any]) -> tree.Match:
        return tree.Match(parts[0], tuple(parts[1:]), self.span(at))

    def pair(self, at: Place, parts: list[Any]) -> tree.Pair:
        return tree.Pair(parts[0], parts[1], self.span(at))

    def negative_integer(self, at: Place, parts: list[Any]) -> tree.Literal:
        return tree.Literal(-int(self.integer(at, parts).value or 0), self.span(at))

    def string(self, at: Place, parts: list[Any]) -> tree.Literal:
        return tree.Literal(self.text(parts[0]), self.span(at))

    def integer(self, at: Place, parts: list[Any]) -> tree.Literal:
        digits = parts[0].lstrip("0") or "0"
        if len(digits) > 18:
            self.fault("syntax", "a number has more than 18 digits", self.span(at))
            digits = "0"
        return tree.Literal(int(digits), self.span(at))

    def float(self, at: Place, parts: list[Any]) -> tree.Literal:
        value = float(parts[0])
        if math.isinf(value):
            self.fault("syntax", "a number is larger than a float can be", self.span(at))
        return tree.Literal(value, self.span(at))

    def true(self, at: Place, parts: list[Any]) -> tree.Literal:
        return tree.Literal(True, self.span(at))

    def false(self, at: Place, parts: list[Any]) -> tree.Literal:
        return tree.Literal(False, self.span(at))

    def null(self, at: Place, parts: list[Any]) -> tree.Literal:
        return tree.Literal(None, self.span(at))


def name_of(token: Any) -> str | None:
    """The text of an optional token."""
    return None if token is None else str(token)
