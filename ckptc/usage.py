"""A command line that says nothing sensible: what is raised, for exit code 2."""

from __future__ import annotations


class UsageError(Exception):
    """One sentence. `command` is the command whose help tells more, where there is one."""

    of_option = False

    def __init__(self, sentence: str = "", command: str = "") -> None:
        super().__init__(sentence)
        self.command = command


class BadValue(UsageError):
    """What an option cannot be; the command that takes it adds itself."""

    of_option = True

    def __init__(self, option: str, why: str) -> None:
        super().__init__(f"invalid value for {option}: {why}")
