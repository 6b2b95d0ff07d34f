"""What a parameter or a setting is declared as, in; its kind, and a given value read as that kind, out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..dsl.diagnostic import Diagnostic, MappingError
from ..dsl.nearest import nearest
from ..dsl.tree import Binary, Call, Conditional, Expr, Literal, Param, Ref, Unary
from .typed_text import Text, value

TRUTH, WHOLE, NUMBER, WORD, TEXT, ANY = "true or false", "a whole number", "a number", "a word", "a text", ""
# What people write for true and false elsewhere, and which of them they mean.
MEANT = {"yes": "true", "on": "true", "1": "true", "no": "false", "off": "false", "0": "false"}


@dataclass(frozen=True)
class Declared:
    """The kind of a value, what it may be where that is a few words, and one that it could be."""

    kind: str
    choices: tuple[str, ...] = ()
    example: str = ""


def of_param(param: Param, words: frozenset[str], known: Mapping[str, Declared]) -> Declared:
    """`words` are those that stand for themselves in the layout; `known` are the parameters before, and the model's axes."""
    word = param.default.name if isinstance(param.default, Ref) and param.default.name in words else None
    if choices := param.choices or ((word,) if word is not None else ()):
        return Declared(WORD, choices, choices[0])
    return Declared(WHOLE, (), "1") if param.rank else of_expression(param.default, known)


def of_expression(expr: Expr, known: Mapping[str, Declared]) -> Declared:
    """What an expression gives, as far as its form says it."""
    match expr:
        case Literal(bool() as literal):
            return Declared(TRUTH, (), str(literal).lower())
        case Literal(int() as literal):
            return Declared(WHOLE, (), str(literal))
        case Literal(float() as literal):
            return Declared(NUMBER, (), str(literal))
        case Literal(str() as literal):
            return Declared(TEXT, (), literal)
        case Ref(name):
            return known.get(name, Declared(ANY))
        case Unary("not") | Binary("or" | "and" | "==" | "!=" | "<" | "<=" | ">" | ">=" | "in") | Call("stored" | "has" | "lacks"):
            return Declared(TRUTH, (), "true")
        case Unary() | Binary("+" | "-" | "*" | "/" | "%"):
            return Declared(NUMBER, (), "1")
        case Conditional(_, yes, no):
            one, other = of_expression(yes, known), of_expression(no, known)
            return one if one.kind == other.kind else Declared(ANY)
    return Declared(ANY)


def read(given: Any, declared: Declared, name: str, of: str) -> Any:
    """The value as it is declared; a text of the command line is read as that. Raises `MappingError` where it is none of its kind.

    `of` says whose `name` is, such as "layout `nxdt`".
    """
    if given is None:
        return None
    read = str(given) if isinstance(given, Text) and declared.kind in (WORD, TEXT) else value(given) if isinstance(given, Text) else given
    if declared.choices:
        if read in declared.choices:
            return read
        is_ = f"one of {', '.join(declared.choices)}" if len(declared.choices) > 1 else f"always {declared.choices[0]}"
        raise _wrong("unknown-choice", declared, name, of, is_, given, nearest(str(given), declared.choices))
    fits = {
        TRUTH: isinstance(read, bool), WHOLE: type(read) is int, NUMBER: type(read) in (int, float), TEXT: isinstance(read, str),
    }.get(declared.kind, True)  # fmt: skip
    if fits:
        return read
    text = str(read)
    near = {
        TRUTH: MEANT.get(text.lower()) or nearest(text, ("true", "false")),
        WHOLE: str(int(read)) if isinstance(read, float) and read.is_integer() else None,
    }.get(declared.kind)  # fmt: skip
    raise _wrong("wrong-type", declared, name, of, declared.kind, read, near)


def _wrong(code: str, declared: Declared, name: str, of: str, is_: str, given: Any, near: str | None) -> MappingError:
    help = f"did you mean `{near}`?" if near else f"use --set {name}={declared.example}"
    return MappingError(Diagnostic(code, f"`{name}` of {of} is {is_}, not `{given}`", help=help))
