"""Words of messages that several modules need: a number with its noun, and the first few of many names."""

from __future__ import annotations

from collections.abc import Iterable

SHOWN = 5


def few(names: Iterable[str]) -> tuple[str, ...]:
    """The first few names, and how many more there are."""
    every = list(names)
    more = (f"... and {len(every) - SHOWN} more",) if len(every) > SHOWN else ()
    return (*every[:SHOWN], *more)


def count(number: int, noun: str) -> str:
    """`1 tensor`, `2,000 tensors`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
