"""The words after a rule or a tensor, in any order in; one value per word out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..diagnostic import Diagnostic, Label
from ..tree import Span

PLACEMENTS = ("first", "last", "beyond", "all")


@dataclass(frozen=True)
class Modifier:
    """One modifier as written: `word` is with, elementwise, as, on, optional, made, tied to, before, after, view or when."""

    word: str
    value: Any
    span: Span


def sort_modifiers(modifiers: list[Modifier], faults: list[Diagnostic]) -> dict[str, Any]:
    """The value of each word; only elementwise may stand more than once. Repetitions go to `faults`."""
    first: dict[str, Modifier] = {}
    for modifier in modifiers:
        if modifier.word == "elementwise":
            continue
        before = first.setdefault(modifier.word, modifier)
        if before is not modifier:
            labels = (Label(modifier.span, "said again here"), Label(before.span, "first said here"))
            help = f"keep one `{modifier.word}`" + ("; join conditions by `and`" if modifier.word == "when" else "")
            faults.append(Diagnostic("repeated-modifier", f"`{modifier.word}` is said twice", labels, help=help))
    return {word: modifier.value for word, modifier in first.items()}
