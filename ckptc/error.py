"""The base of all that ckptc raises, which every room may name; it imports nothing."""

from __future__ import annotations


class Error(Exception):
    """What is wrong with a checkpoint, a mapping, or what was asked for. `str` of it is the whole diagnostic.

    It is a `Fault` or a `MappingError`. A fault that is a missing tensor is a `KeyError` as well, one that is a missing file a
    `FileNotFoundError`, and one that is a destination which exists a `FileExistsError`.
    """


def diagnostic_text(severity: str, code: str, title: str, places: tuple[str, ...], notes: tuple[str, ...], help: str) -> str:
    """One diagnostic as a person reads it, without the lines of mapping files that it points at."""
    lines = [f"{severity}[{code}]: {title}", *(f" --> {place}" for place in places), *(f"  = note: {note}" for note in notes)]
    return "\n".join([*lines, *([f"  = help: {help}"] if help else [])])
