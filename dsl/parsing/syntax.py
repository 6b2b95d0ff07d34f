"""What the grammar would have taken in; the words of a `syntax` diagnostic out."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..diagnostic import Diagnostic, Label
from ..nearest import nearest
from ..tree import Span

_MARKS = re.compile(r'"(?:\\.|[^"\\\n])*"|#[^\n]*|[\[\](){}]')
_CLOSES = {"(": ")", "[": "]", "{": "}"}
KINDS = {
    "NAME": "a name",
    "LAYOUT_NAME": "a layout name",
    "KEY": "a config key",
    "INT": "a number",
    "FLOAT": "a number",
    "STRING": "a string",
    "$END": "the end of the file",
}
# What a person calls a whole set of tokens, largest first.
_SETS = (
    ({"IF", "NOT", "TRUE", "NULL", "NAME", "INT", "STRING"}, "an expression", {"IF", "NOT", "TRUE", "FALSE", "NULL", "NAME", "KEY", "MATCH", "INT", "FLOAT", "STRING", "MINUS", "LPAR"}),
    ({"NOT", "TRUE", "NULL", "NAME"}, "an expression", {"NOT", "TRUE", "FALSE", "NULL", "NAME", "KEY", "MATCH", "INT", "FLOAT", "STRING", "MINUS", "LPAR"}),
    ({"TRUE", "NULL", "NAME"}, "a value", {"TRUE", "FALSE", "NULL", "NAME", "KEY", "MATCH", "INT", "FLOAT", "STRING", "MINUS", "LPAR"}),
    ({"NAME", "INT", "LPAR", "PAD"}, "an axis", {"NAME", "INT", "LPAR", "PAD", "COPIES"}),
    ({"NAME", "INT", "LPAR"}, "a number or a name", {"NAME", "INT", "FLOAT", "LPAR"}),
    ({"AXES", "SETTINGS"}, "a declaration", {"AXES", "SETTINGS", "HINTS", "SELECT", "AXIS", "REQUIRE", "NAME"}),
    ({"IGNORE", "UNDER"}, "a rule", {"NOTE", "OBJECT", "FILES", "FORMAT", "CONFIG", "CARRY", "STAGES", "STATE", "AXIS", "LET", "REQUIRE", "IGNORE", "UNDER", "COPY", "STRING"}),
    ({"USE", "MODEL", "LAYOUT"}, "a `use`, `model` or `layout`", {"USE", "MODEL", "LAYOUT"}),
    ({"AS", "ON", "WITH"}, "a modifier", {"AS", "ON", "WITH", "OPTIONAL", "WHEN", "PLUS", "MINUS", "STAR"}),
)  # fmt: skip
_OPERATORS = {
    *("or", "and", "==", "!=", "<", "<=", ">", ">=", "in", "??", "+", "-", "*", "/", "%", ":"),
}


def unexpected(text: str, span: Span, found: str, accepts: set[str], literals: Mapping[str, str]) -> Diagnostic:
    """The fault of finding `found` ("" at the end) at `span`; `literals` maps a token's name to its spelling."""
    opened = _open_marks(text, span)
    if not found and opened:
        mark, where = opened[-1]
        where = Span(span.file, where.line, where.column, where.end_line, where.end_column)
        return Diagnostic(
            "syntax", f"`{mark}` is never closed", (Label(where, "opened here"),), help=f"add `{_CLOSES[mark]}`"
        )
    if found in _CLOSES.values() and not opened:
        return Diagnostic(
            "syntax", f"`{found}` closes nothing", (Label(span, "nothing is open here"),), help=f"delete the `{found}`"
        )
    labels = [Label(span, "")]
    spelled = {literals[name] for name in accepts if name in literals}
    if found in _CLOSES.values() and _CLOSES[opened[-1][0]] != found:
        labels.append(Label(opened[-1][1], "opened here"))
        wanted = f"`{_CLOSES[opened[-1][0]]}`" if _CLOSES[opened[-1][0]] in spelled else _wanted(accepts, literals)
    else:
        wanted = _wanted(accepts, literals)
    before = f"`{_short(found)}`" if found else "the end of the file"
    words = {word for word in spelled if word.isalpha()}
    guess = nearest(found, words) if found.isidentifier() else None
    help = f"did you mean `{guess}`?" if guess else _advice(text, span, found, wanted)
    return Diagnostic("syntax", f"expected {wanted} before {before}", tuple(labels), help=help)


def stray(text: str, span: Span) -> Diagnostic:
    """The fault of a character that starts no token."""
    line = text.split("\n")[span.line - 1]
    char = line[span.column - 1 : span.column]
    if char == '"':
        whole = Span(span.file, span.line, span.column, span.line, max(len(line.rstrip()), span.column) + 1)
        return Diagnostic("syntax", "a string is never closed", (Label(whole, ""),), help='add `"` at its end')
    if char.isdigit():
        word = re.match(r"[\w.]+", line[span.column - 1 :])
        return Diagnostic("syntax", f"`{word[0] if word else char}` is neither a number nor a name", (Label(span, ""),))
    help = 'strings are written with `"`' if char in "'`" else ""
    return Diagnostic("syntax", f"unknown character `{char}`", (Label(span, ""),), help=help)


def _wanted(accepts: set[str], literals: Mapping[str, str]) -> str:
    left = set(accepts)
    if "EQUAL" in left:
        return "`=`"
    words: list[str] = []
    for key, name, members in _SETS:
        if key <= left:
            words.append(name)
            left -= members
    rest = {literals.get(name, name): name for name in left}
    firm = sorted(word for word in rest if word not in _OPERATORS)
    for word in firm or sorted(rest):
        kind = KINDS.get(rest[word], f"`{word}`")
        if kind not in words:
            words.append(kind)
    if len(words) > 1 and KINDS["$END"] in words:
        words.remove(KINDS["$END"])
    # The next whole thing or a closing bracket tells more than ten keywords that could follow.
    shown = words if len(words) <= 4 else [word for word in words if word[1] in ",])}" or word[0] != "`"] or words
    return _join(shown[:4])


def _join(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1] if words else "nothing"


def _advice(text: str, span: Span, found: str, wanted: str) -> str:
    line = text.split("\n")[span.line - 1] if text else ""
    if found == "/" and line[: span.column - 1].endswith("/"):
        return "`/` divides exactly; round up with `ceil_div(a, b)`"
    if "`,`" in wanted and "`]`" in wanted and found not in ("}", ""):
        return "separate dimensions by `,`, or join axes into one dimension as `(a b)`"
    return ""


def _short(found: str) -> str:
    return found if len(found) <= 40 else found[:37] + "..."


def _open_marks(text: str, upto: Span) -> list[tuple[str, Span]]:
    """The brackets that are still open where `upto` starts, outermost first."""
    lines = text.split("\n")[: upto.line]
    if lines:
        lines[-1] = lines[-1][: upto.column - 1]
    opened: list[tuple[str, Span]] = []
    for number, line in enumerate(lines, 1):
        for match in _MARKS.finditer(line):
            mark = match[0]
            if mark in _CLOSES:
                column = match.start() + 1
                opened.append((mark, Span(upto.file, number, column, number, column + 1)))
            elif opened and mark == _CLOSES[opened[-1][0]]:
                opened.pop()
    return opened
