"""What was typed as KEY=VALUE: a text whose type is known once it is known what it is for."""

from __future__ import annotations


class Text(str):
    """A value as it was typed."""


def value(text: str) -> bool | int | float | str:
    """`true`, `7`, `0.5` or a word, by how it is written."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return str(text)
