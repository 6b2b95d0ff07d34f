"""Diagnostics as data: found by a phase, rendered by `render`, shown by the face."""

from __future__ import annotations

from dataclasses import dataclass

from ..error import Error, diagnostic_text
from .tree import Span


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
        places = tuple(f"{x.span.file}:{x.span.line}:{x.span.column}" + (f": {x.text}" if x.text else "") for x in self.labels)
        return diagnostic_text(self.severity, self.code, self.title, places, self.notes, self.help)


class MappingError(Error):
    """All faults of one phase, raised together; later phases do not run on a faulty tree."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        self.diagnostics = diagnostics
        super().__init__(*diagnostics)

    def __str__(self) -> str:
        return "\n\n".join(dict.fromkeys(map(str, self.diagnostics)))


def fault(code: str, title: str, span: Span, text: str = "", *, notes: tuple[str, ...] = (), help: str = "") -> MappingError:
    """One fault at one place, to be raised."""
    return MappingError(Diagnostic(code, title, (Label(span, text),), notes, help))
