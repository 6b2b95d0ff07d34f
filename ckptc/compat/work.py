"""What a script's arguments are turned into, and argparse as the scripts use it."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NoReturn

from ..usage import UsageError


@dataclass(frozen=True)
class Work:
    """What a script's arguments mean: the arguments of one native command, and what there is to say about them.

    `then` is the command that comes after. `closing` gives the lines with which the script itself ends, which people look
    for in logs; it is asked when the command is done. They go to standard error where `logs` says that the script's do.
    """

    arguments: tuple[str, ...]
    notes: tuple[str, ...] = ()
    then: Work | None = None
    closing: Callable[[], Iterable[str]] | None = None
    logs: bool = False


class ScriptParser(argparse.ArgumentParser):
    """argparse as the scripts use it, but with faults of usage raised, in one sentence."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see `{self.prog} --help`)")


def truth(text: str) -> bool:
    """A yes or a no that means what it says; the empty text is a no."""
    word = text.strip().lower()
    if word in ("true", "yes", "1", "on"):
        return True
    if word in ("false", "no", "0", "off", ""):
        return False
    raise argparse.ArgumentTypeError(f"`{text}` is neither True nor False")
