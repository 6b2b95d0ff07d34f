"""A string token in; a `Pattern` with exactly placed holes out, or `bad-pattern` diagnostics."""

from __future__ import annotations

import re
from collections.abc import Callable

from ..diagnostic import Diagnostic, Label, MappingError
from ..tree import Expr, Hole, Pattern, Span

_HOLE = re.compile(r"\s*(?P<axis>[A-Za-z_]\w*)\s*(?:/\s*(?P<rank>[A-Za-z_]\w*)\s*)?(?P<rest>[+-].*)?$", re.ASCII)
_WIDTH = re.compile(r"\s*0([1-9][0-9]?)\s*$", re.ASCII)

ParseExpr = Callable[[str, Span], Expr]


def unescape(raw: str) -> list[tuple[str, int]]:
    """The characters inside a quoted token, each with its offset in the token; `\\\\` and `\\"` are one."""
    found = []
    at = 1
    while at < len(raw) - 1:
        step = 2 if raw[at] == "\\" else 1
        found.append((raw[at + step - 1], at))
        at += step
    return found


def parse_pattern(raw: str, span: Span, parse_expr: ParseExpr) -> Pattern:
    """Split the token `raw`, standing at `span`, into text and holes; `parse_expr` reads a hole's offset."""
    chars = unescape(raw)
    text = "".join(char for char, _ in chars)
    place = [at for _, at in chars] + [len(raw) - 1]
    parts: list[str | Hole] = []
    literal = ""
    at = 0

    def spot(start: int, end: int) -> Span:
        return Span(span.file, span.line, span.column + place[start], span.line, span.column + place[end])

    while at < len(text):
        if text[at : at + 2] in ("{{", "}}"):
            literal += text[at]
            at += 2
        elif text[at] == "}":
            raise _bad("`}` closes no hole", spot(at, at + 1), "nothing is open here", "write `}}` for a literal brace")
        elif text[at] == "{":
            end = text.find("}", at)
            if end < 0:
                raise _bad("a hole is never closed", spot(at, at + 1), "opened here", "add `}`, or write `{{`")
            if literal:
                parts.append(literal)
                literal = ""
            inside = spot(at + 1, end)
            parts.append(_hole(text[at + 1 : end], inside, spot(at, end + 1), parse_expr))
            at = end + 1
        else:
            literal += text[at]
            at += 1
    if literal:
        parts.append(literal)
    return Pattern(tuple(parts), span)


def _hole(text: str, inside: Span, span: Span, parse_expr: ParseExpr) -> Hole:
    if not text.strip():
        raise _bad("a hole is empty", span, "no axis here", "name an axis, such as `{layer}`, or write `{{}}`")
    if '"' in text or "\\" in text:
        raise _bad("a string stands in a hole", span, "", "give the value a name with a setting and use that")
    head, colon, digits = text.rpartition(":")
    width = 0
    if colon:
        found = _WIDTH.match(digits)
        if found is None:
            raise _bad(f"`{digits.strip()}` is not a width", span, "", "write the digits as in `{layer:03}`")
        width = int(found[1])
    else:
        head = text
    match = _HOLE.match(head)
    if match is None:
        raise _bad(
            f"`{head.strip()}` is not an axis",
            span,
            "an axis, then `/rank`, `+ offset` and `:03` as needed",
            "write a hole as `{layer}`, `{layer/pp}`, `{layer + 1}` or `{layer:03}`; `{{` is a literal brace",
        )
    offset = None
    if match["rest"]:
        # `- e` is the offset `-e`; a plus is only punctuation.
        start = match.start("rest") + (match["rest"][0] == "+")
        where = Span(span.file, span.line, inside.column + start, span.line, inside.column + len(head))
        try:
            offset = parse_expr(head[start:], where)
        except MappingError as error:
            first = error.diagnostics[0]
            raise MappingError(
                Diagnostic(
                    "bad-pattern",
                    first.title.replace("the end of the file", "the end of the hole"),
                    first.labels,
                    help=first.help,
                )
            ) from None
    return Hole(match["axis"], match["rank"], offset, width, span)


def _bad(title: str, span: Span, label: str, help: str) -> MappingError:
    return MappingError(Diagnostic("bad-pattern", title, (Label(span, label),), help=help))
