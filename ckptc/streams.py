"""Standard streams as a process may have them, in: closed, full, of a narrow encoding, or none at all. Ones that can be printed to, out."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO


def make_usable() -> None:
    """A stream that is none, as without a console or after `>&-`, leads nowhere. What an encoding does not have is escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def put(text: str, stream: TextIO) -> None:
    """Print a text. Where that cannot be done, nobody reads it."""
    try:
        print(text, file=stream, flush=True)
    except (OSError, ValueError):
        silence(stream)


def why_unwritable(stream: TextIO) -> str:
    """Why nothing can be printed; empty where it can. An empty line is printed to find out."""
    try:
        print(file=stream, flush=True)
    except (OSError, ValueError) as problem:
        return str(getattr(problem, "strerror", None) or problem)
    return ""


def silence(*streams: TextIO) -> None:
    """What is still buffered goes nowhere, instead of failing again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        try:
            os.dup2(nowhere, stream.fileno())
        except (OSError, ValueError):  # it is no file
            continue
    os.close(nowhere)
