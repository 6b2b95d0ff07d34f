"""Diagnostics as data: found by a phase, rendered by `render`, shown by the face."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..error import Error, diagnostic_text
from .tree import Span

MOST_SHOWN = 20  # faults of one phase that a person is shown, and notes of one fault
_MOST_PLACES = 8  # of one fault


@dataclass(frozen=True)
class Label:
    """A fact about a place in a mapping file."""

    span: Span
    text: str = ""


@dataclass(frozen=True)
class Diagnostic:
    """One fault. `code` is a short hyphenated slug that is never reused; `title` states the fault.

    `labels[0]` is the primary place (may be empty for faults outside any file); `notes` say where
    numbers came from; `help` is one action that can be copied.
    """

    code: str
    title: str
    labels: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: str = ""
    severity: str = "error"  # or "warning"

    def __str__(self) -> str:
        labels, notes = shown(self)
        places = tuple(f"{x.span.file}:{x.span.line}:{x.span.column}" + (f": {x.text}" if x.text else "") for x in labels)
        return diagnostic_text(self.severity, self.code, self.title, places, notes, self.help)


class MappingError(Error):
    """All faults of one phase, raised together; later phases do not run on a faulty tree."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        self.diagnostics = diagnostics
        super().__init__(*diagnostics)

    def __str__(self) -> str:
        texts = list(dict.fromkeys(map(str, self.diagnostics)))
        return "\n\n".join([*texts[:MOST_SHOWN], *and_more(texts[MOST_SHOWN:])])


def shown(diagnostic: Diagnostic) -> tuple[tuple[Label, ...], tuple[str, ...]]:
    """Its first labels and notes, with a note of how many more there are."""
    labels, notes = diagnostic.labels[:_MOST_PLACES], diagnostic.notes[:MOST_SHOWN]
    return labels, (*notes, *and_more(diagnostic.labels[_MOST_PLACES:], " place"), *and_more(diagnostic.notes[MOST_SHOWN:], " note"))


def and_more(left: Sequence[object], what: str = "") -> list[str]:
    """A line about those that are not shown, if there are any."""
    return [f"and {len(left):,} more{what}{'s' * (what != '' and len(left) > 1)}"] if left else []


def fault(code: str, title: str, span: Span, text: str = "", *, notes: tuple[str, ...] = (), help: str = "") -> MappingError:
    """One fault at one place, to be raised."""
    return MappingError(Diagnostic(code, title, (Label(span, text),), notes, help))
