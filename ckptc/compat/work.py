"""What a script's arguments are turned into, and argparse as the scripts use it."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from ..usage import UsageError


@dataclass(frozen=True)
class Work:
    """What a script's arguments mean: native arguments, and what there is to say about them.

    If running them fails with a code of `otherwise_on`, the files call for `otherwise` instead. `do` does the work where
    the arguments do not say all of it, and the notes the rest. `then` is what comes after.
    """

    arguments: tuple[str, ...]
    notes: tuple[str, ...] = ()
    otherwise_on: tuple[str, ...] = ()
    otherwise: Work | None = None
    do: Callable[[], None] | None = None
    then: Work | None = None


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
