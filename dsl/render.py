"""Diagnostics and the sources they speak of in; text for a person, or records for `--json`, out."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from .diagnostic import MOST_SHOWN, Diagnostic, Label, and_more, shown
from .tree import Span

_LONGEST, _MOST_LETTERS = 300, 6000  # of a line; of all diagnostics, but for the last one
_TAB = "    "
_BOLD, _RED, _YELLOW, _BLUE = "1", "1;31", "1;33", "1;34"


def render(diagnostics: Iterable[Diagnostic], sources: Mapping[str, str], color: bool = False) -> str:
    """All diagnostics, one paragraph each; `sources` gives the text of each file that spans name.

    Faults with the same code and title become one, with the further places in a note. Of many, the first are shown.
    """
    groups: dict[tuple[str, str], list[Diagnostic]] = {}
    for diagnostic in diagnostics:
        groups.setdefault((diagnostic.code, diagnostic.title), []).append(diagnostic)
    found = list(groups.values())
    if len(found) > MOST_SHOWN:
        found.sort(key=lambda same: same[0].severity != "error")
    texts: list[str] = []
    for same in found[:MOST_SHOWN]:
        if sum(map(len, texts)) < _MOST_LETTERS:
            texts.append(_one(same[0], same[1:], sources, color))
    return "\n\n".join([*texts, *and_more(found[len(texts) :])])


def to_record(diagnostic: Diagnostic) -> dict[str, Any]:
    """The diagnostic as plain data for `--json`."""
    return {
        "code": diagnostic.code,
        "severity": diagnostic.severity,
        "title": diagnostic.title,
        "labels": [
            {
                "file": label.span.file,
                "line": label.span.line,
                "column": label.span.column,
                "end_line": label.span.end_line,
                "end_column": label.span.end_column,
                "text": label.text,
            }
            for label in diagnostic.labels
        ],
        "notes": list(diagnostic.notes),
        "help": diagnostic.help,
    }


def _one(diagnostic: Diagnostic, more: list[Diagnostic], sources: Mapping[str, str], color: bool) -> str:
    def paint(text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if color else text

    loud = _YELLOW if diagnostic.severity == "warning" else _RED
    shown_labels, shown_notes = shown(diagnostic)
    width = max((len(str(label.span.line)) for label in shown_labels), default=1)
    bar = paint(" " * (width + 1) + "|", _BLUE)
    lines = [paint(f"{diagnostic.severity}[{diagnostic.code}]", loud) + paint(f": {_short(diagnostic.title)}", _BOLD)]
    for number, (file, labels) in enumerate(_by_file(shown_labels)):
        primary = labels[0] if number == 0 else None
        arrow = "-->" if number == 0 else ":::"
        lines.append(" " * width + paint(arrow, _BLUE) + f" {_place(labels[0].span)}")
        if file in sources:
            lines.append(bar)
            lines += _excerpt(sources[file].split("\n"), labels, primary, width, loud, paint)
    notes = list(shown_notes)
    if more:
        places = [_place(other.labels[0].span) for other in more if other.labels]
        listed = ": " + ", ".join(places[:3]) + (", ..." if len(places) > 3 else "") if places else ""
        notes.append(f"and {len(more)} more place{'s' * (len(more) > 1)}{listed}")
    if notes or diagnostic.help:
        lines += [bar] if any(label.span.file in sources for label in shown_labels) else []
        margin = " " * (width + 1) + paint("=", _BLUE)
        lines += [f"{margin} note: {_short(note)}" for note in notes]
        lines += [f"{margin} help: {_short(diagnostic.help)}"] if diagnostic.help else []
    return "\n".join(line.rstrip() for line in lines)


def _by_file(labels: tuple[Label, ...]) -> list[tuple[str, list[Label]]]:
    """Labels grouped by file, the primary label's file and the primary label first."""
    files: dict[str, list[Label]] = {}
    for label in labels:
        files.setdefault(label.span.file, []).append(label)
    return list(files.items())


def _excerpt(
    source: list[str], labels: list[Label], primary: Label | None, width: int, loud: str, paint: Any
) -> list[str]:
    lines: list[str] = []
    before = 0
    for label in sorted(labels, key=lambda label: (label.span.line, label is not primary)):
        span = label.span
        text = source[span.line - 1] if 0 < span.line <= len(source) else ""
        text, span = _cut(text, span)
        if span.line != before:
            if before and span.line > before + 1:
                lines.append(paint("...", _BLUE))
            lines.append(paint(f"{span.line:>{width}} |", _BLUE) + " " + _printable(text))
        before = span.line
        end = span.end_column if span.end_line == span.line else len(text.rstrip()) + 1
        start_at = _columns(text[: span.column - 1])
        length = max(1, _columns(text[: end - 1]) - start_at)
        mark, code = ("^", loud) if label is primary else ("-", _BLUE)
        underline = paint(f"{mark * length} {_short(label.text)}".rstrip(), code)
        lines.append(paint(" " * (width + 1) + "|", _BLUE) + " " + " " * start_at + underline)
    return lines


def _cut(text: str, span: Span) -> tuple[str, Span]:
    """Of a line that is too long to be shown, what stands around the span."""
    if len(text) <= _LONGEST:
        return text, span
    begin = max(0, span.column - _LONGEST // 2)
    end = min(span.end_column, begin + _LONGEST) if span.end_line == span.line else begin + _LONGEST
    part = text[begin : begin + _LONGEST]
    return part, replace(span, column=max(1, span.column - begin), end_line=span.line, end_column=max(1, min(end - begin, len(part) + 1)))


def _short(text: str) -> str:
    """A sentence that quotes megabytes, cut."""
    return text if len(text) <= 4 * _LONGEST else f"{text[: 3 * _LONGEST]} ... {text[-_LONGEST:]}"


def _place(span: Span) -> str:
    return f"{span.file}:{span.line}:{span.column}" if span.line else span.file


def _printable(text: str) -> str:
    """Tabs become spaces; a control character cannot reach the terminal."""
    text = text.rstrip("\r").replace("\t", _TAB)
    return "".join("\ufffd" if unicodedata.category(char) == "Cc" else char for char in text)


def _columns(text: str) -> int:
    """How many terminal columns `text` takes when printed."""
    wide = (
        2 if unicodedata.east_asian_width(char) in "WF" else 0 if unicodedata.combining(char) else 1
        for char in _printable(text)
    )
    return sum(wide)
