"""Grammar rules in, tree nodes out: one method per rule or alias of `grammar.lark`.

A method takes the place of the rule and its finished children. Faults are collected, not raised.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from . import tree
from .diagnostic import Diagnostic, Label, MappingError
from .dtypes import TORCH_NAMES
from .modifiers import PLACEMENTS, Modifier, sort_modifiers
from .nearest import nearest
from .pattern import parse_pattern, unescape
from .tree import Expr, Index, Span

class Place(Protocol):
    """Where lark says something stands; a token is also a `str`."""

    line: int
    column: int
    end_line: int
    end_column: int


class Build:
    """Makes the nodes of one file; `parse_expr` reads the expressions inside name patterns."""

    def __init__(self, file: str, parse_expr: Callable[[str, Span], Expr]) -> None:
        self.file = file
        self.faults: list[Diagnostic] = []
        self._parse_expr = parse_expr

    def span(self, place: Place) -> Span:
        """The span of a rule or token; a rule that matched nothing stands at 1:1."""
        line, column = getattr(place, "line", 1), getattr(place, "column", 1)
        end_line, end_column = getattr(place, "end_line", line), getattr(place, "end_column", column)
        return Span(self.file, line, column, end_line, end_column)

    def _fault(self, code: str, title: str, span: Span, label: str = "", help: str = "") -> None:
        self.faults.append(Diagnostic(code, title, (Label(span, label),), help=help))

    def _text(self, token: Any) -> str:
        for char, at in unescape(token):
            if token[at] == "\\" and char not in '\\"':
                span = self.span(token)
                here = Span(self.file, span.line, span.column + at, span.line, span.column + at + 2)
                self._fault("syntax", f"unknown escape `\\{char}`", here, help='only `\\\\` and `\\"` are escapes')
        return "".join(char for char, _ in unescape(token))

    def _pattern(self, token: Any) -> tree.Pattern:
        self._text(token)
        try:
            return parse_pattern(token, self.span(token), self._parse_expr)
        except MappingError as error:
            self.faults.extend(error.diagnostics)
            return tree.Pattern((), self.span(token))

    def _axes(self, tokens: list[Any]) -> tuple[tree.AxisDecl, ...]:
        return tuple(tree.AxisDecl(str(token), self.span(token)) for token in tokens if token is not None)

    # --- file and model

    def mapping(self, at: Place, parts: list[Any]) -> tree.Mapping:
        return tree.Mapping(
            tuple(part for part in parts if isinstance(part, tree.Use)),
            tuple(part for part in parts if isinstance(part, tree.Model)),
            tuple(part for part in parts if isinstance(part, tree.Layout)),
            self.span(at),
        )

    def use(self, at: Place, parts: list[Any]) -> tree.Use:
        return tree.Use(self._text(parts[0]), self.span(at))

    def model(self, at: Place, parts: list[Any]) -> tree.Model:
        name, extends, *items = parts
        flat: list[Any] = [node for item in items for node in (item if isinstance(item, tuple) else (item,))]

        def pick(kind: type) -> Any:
            return tuple(node for node in flat if isinstance(node, kind))

        return tree.Model(
            str(name),
            _name(extends),
            pick(tree.AxisDecl),
            pick(tree.Setting),
            pick(tree.Refine),
            pick(tree.Require),
            pick(tree.TensorDecl),
            self.span(at),
        )

    def axes(self, at: Place, parts: list[Any]) -> tuple[tree.AxisDecl, ...]:
        return self._axes(parts)

    tensor_axes = parts = axes

    def settings(self, at: Place, parts: list[Any]) -> tuple[Any, ...]:
        return tuple(part for part in parts if part is not None)

    sizes = params = dims = settings

    def entry(self, at: Place, parts: list[Any]) -> tree.Setting:
        return tree.Setting(str(parts[0]), parts[1], self.span(at))

    def refine(self, at: Place, parts: list[Any]) -> tree.Refine:
        axis, names, sizes, when = parts
        return tree.Refine(str(axis), tuple(part.name for part in names), sizes or (), when, self.span(at))

    def require(self, at: Place, parts: list[Any]) -> tree.Require:
        return tree.Require(parts[0], self._text(parts[1]), parts[2], self.span(at))

    def tensor(self, at: Place, parts: list[Any]) -> tree.TensorDecl:
        name, axes, *modifiers = parts
        found = sort_modifiers(modifiers, self.faults)
        return tree.TensorDecl(
            str(name), axes, "optional" in found, found.get("tied to"), found.get("when"), self.span(at)
        )

    # --- layout

    def layout(self, at: Place, parts: list[Any]) -> tree.Layout:
        name, model, extends, params, *items = parts
        return tree.Layout(
            str(name), str(model), _name(extends), params or (), self._carried(items), self.span(at)
        )

    def _carried(self, items: list[Any]) -> tuple[tree.LayoutItem, ...]:
        """Give each bare string to the `carry` that it follows."""
        kept: list[Any] = []
        for item in items:
            if not isinstance(item, tree.Use):
                kept.append(item)
            elif kept and isinstance(kept[-1], tree.Carry):
                last, end = kept[-1].span, item.span
                span = Span(self.file, last.line, last.column, end.end_line, end.end_column)
                kept[-1] = tree.Carry((*kept[-1].globs, item.file), span)
            else:
                self._fault("syntax", "expected `=` after a stored tensor's name", item.span, "a rule starts here")
        return tuple(kept)

    def bare(self, at: Place, parts: list[Any]) -> tree.Use:
        return self.use(at, parts)  # only a carrier for text and place; `_carried` removes it

    def carry(self, at: Place, parts: list[Any]) -> tree.Carry:
        return tree.Carry((self._text(parts[0]),), self.span(at))

    def param(self, at: Place, parts: list[Any]) -> tree.Param:
        return tree.Param(str(parts[0]), parts[1], False, (), self.span(at))

    def rank_param(self, at: Place, parts: list[Any]) -> tree.Param:
        return tree.Param(str(parts[0]), parts[1], True, (), self.span(at))

    def choice_param(self, at: Place, parts: list[Any]) -> tree.Param:
        name, *choices = parts
        default = tree.Ref(str(choices[0]), self.span(choices[0]))
        return tree.Param(str(name), default, False, tuple(map(str, choices)), self.span(at))

    def files(self, at: Place, parts: list[Any]) -> tree.Files:
        return tree.Files(self._pattern(parts[0]), parts[1], self.span(at))

    def formats(self, at: Place, parts: list[Any]) -> tree.Formats:
        return tree.Formats(tuple(map(str, parts)), self.span(at))

    def config(self, at: Place, parts: list[Any]) -> tree.Config:
        file, template, *entries = parts
        named = None if template is None else self._text(template)
        return tree.Config(self._text(file), tuple(entries), named, self.span(at))

    def stages(self, at: Place, parts: list[Any]) -> tree.Stages:
        axis, rank, interleave, remainder = parts
        return tree.Stages(str(axis), str(rank), _name(interleave), remainder, self.span(at))

    def end(self, at: Place, parts: list[Any]) -> str:
        return str(parts[0])

    def let(self, at: Place, parts: list[Any]) -> tree.Let:
        return tree.Let(str(parts[0]), parts[1], parts[2], self.span(at))

    def rule(self, at: Place, parts: list[Any], copy: bool = False) -> tree.Rule:
        names, tensor, dims, *modifiers = parts
        found = sort_modifiers(modifiers, self.faults)
        return tree.Rule(
            names,
            _name(tensor),
            dims,
            found.get("with", ()),
            tuple(modifier.value for modifier in modifiers if modifier.word == "elementwise"),
            found.get("as"),
            found.get("on"),
            "optional" in found,
            copy,
            found.get("when"),
            self.span(at),
        )

    def copy_rule(self, at: Place, parts: list[Any]) -> tree.Rule:
        return self.rule(at, parts, copy=True)

    def ignore(self, at: Place, parts: list[Any]) -> tree.Ignore:
        return tree.Ignore(parts[0], parts[1], self.span(at))

    def under(self, at: Place, parts: list[Any]) -> tree.Under:
        prefix, when, *items = parts
        return tree.Under(self._pattern(prefix), self._carried(items), when, self.span(at))

    def names(self, at: Place, parts: list[Any]) -> tuple[tree.Pattern, ...]:
        return tuple(self._pattern(part) for part in parts)

    def m_with(self, at: Place, parts: list[Any]) -> Modifier:
        return Modifier("with", tuple(parts), self.span(at))

    def m_when(self, at: Place, parts: list[Any]) -> Modifier:
        return Modifier("when", parts[0], self.span(at))

    def m_optional(self, at: Place, parts: list[Any]) -> Modifier:
        return Modifier("optional", True, self.span(at))

    def m_tied(self, at: Place, parts: list[Any]) -> Modifier:
        return Modifier("tied to", str(parts[0]), self.span(at))

    def m_elementwise(self, at: Place, parts: list[Any]) -> Modifier:
        return Modifier("elementwise", tree.Elementwise(parts[0], parts[1], self.span(at)), self.span(at))

    def m_as(self, at: Place, parts: list[Any]) -> Modifier:
        word = str(parts[0])
        if word not in TORCH_NAMES:
            short = next((short for short, torch in TORCH_NAMES.items() if torch == word), None)
            guess = short or nearest(word, TORCH_NAMES)
            help = f"write `as {guess}`" if guess else "the dtypes are " + " ".join(TORCH_NAMES)
            self._fault("unknown-dtype", f"`{word}` is not a dtype", self.span(parts[0]), help=help)
        return Modifier("as", TORCH_NAMES.get(word, word), self.span(at))

    def m_on(self, at: Place, parts: list[Any]) -> Modifier:
        word = str(parts[0])
        if word not in PLACEMENTS:
            help = "write `on first`, `on last` or `on all`"
            self._fault("mixed-placement", f"`{word}` is not a pipeline placement", self.span(parts[0]), help=help)
        return Modifier("on", word, self.span(at))

    def element_op(self, at: Place, parts: list[Any]) -> str:
        return str(parts[0])

    def rename(self, at: Place, parts: list[Any]) -> tree.Rename:
        return tree.Rename(str(parts[0]), str(parts[1]), self.span(at))

    # --- index expressions

    def axis_ref(self, at: Place, parts: list[Any]) -> tree.AxisRef:
        return tree.AxisRef(str(parts[0]), self.span(at))

    def one(self, at: Place, parts: list[Any]) -> tree.One:
        if str(parts[0]) != "1":
            help = "name an axis and give it that size"
            self._fault("syntax", f"expected an axis or `1` instead of `{parts[0]}`", self.span(at), help=help)
        return tree.One(self.span(at))

    def group(self, at: Place, parts: list[Any]) -> tree.Sum:
        return tree.Sum(parts[0].terms, self.span(at))

    def sum(self, at: Place, parts: list[Any]) -> tree.Sum:
        return tree.Sum(tuple(parts), self.span(at))

    def term(self, at: Place, parts: list[Any]) -> tree.Term:
        return tree.Term(_name(parts[0]), tuple(parts[1:]), self.span(at))

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

    def string(self, at: Place, parts: list[Any]) -> tree.Literal:
        return tree.Literal(self._text(parts[0]), self.span(at))

    def integer(self, at: Place, parts: list[Any]) -> tree.Literal:
        digits = parts[0].lstrip("0") or "0"
        if len(digits) > 18:
            self._fault("syntax", "a number has more than 18 digits", self.span(at))
            digits = "0"
        return tree.Literal(int(digits), self.span(at))

    def float(self, at: Place, parts: list[Any]) -> tree.Literal:
        value = float(parts[0])
        if math.isinf(value):
            self._fault("syntax", "a number is larger than a float can be", self.span(at))
        return tree.Literal(value, self.span(at))

    def true(self, at: Place, parts: list[Any]) -> tree.Literal:
        return tree.Literal(True, self.span(at))

    def false(self, at: Place, parts: list[Any]) -> tree.Literal:
        return tree.Literal(False, self.span(at))

    def null(self, at: Place, parts: list[Any]) -> tree.Literal:
        return tree.Literal(None, self.span(at))


def _name(token: Any) -> str | None:
    return None if token is None else str(token)
