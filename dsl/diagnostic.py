"""Diagnostics as data: found by a phase, rendered by `render`, shown by the face."""

from __future__ import annotations

from dataclasses import dataclass

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


class MappingError(Exception):
    """All faults of one phase, raised together; later phases do not run on a faulty tree."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        self.diagnostics = diagnostics
        super().__init__("; ".join(f"{d.code}: {d.title}" for d in diagnostics))
