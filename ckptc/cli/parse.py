"""The words after a command in; values by the names of its options and arguments, or a usage error, out.

Long options take `-` and `_` alike, values stand after a space or `=`, options and arguments in any order; after `--`
come arguments alone. A library for this takes longer to import than a small conversion takes to write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..usage import BadValue, UsageError

HELP = ("--help", "-h")


def filled(text: str) -> str:
    """A text that says something."""
    if not text.strip():
        raise ValueError("it is empty")
    return text


class Option(NamedTuple):
    """`--tp N`; without a `metavar` a flag, and with `off` one that can be turned off as well."""

    names: tuple[str, ...]
    help: str
    metavar: str = ""
    kind: Callable[[str], Any] = filled
    default: Any = None
    many: bool = False
    required: bool = False
    off: str = ""

    @property
    def dest(self) -> str:
        return next(n for n in self.names if n.startswith("--"))[2:].replace("-", "_")

    @property
    def quoted(self) -> str:
        return " / ".join(f"'{name}'" for name in self.names)


class Argument(NamedTuple):
    """`SRC`. With `many` it takes all words that are left."""

    metavar: str
    help: str
    kind: Callable[[str], Any] = filled
    required: bool = True
    many: bool = False

    @property
    def dest(self) -> str:
        return self.metavar.lower()


class Command(NamedTuple):
    """What a command takes, in groups with headings, and what it does with the values: it returns an exit code, or None for 0.

    With `raw`, all that follows the first word is an argument, options too."""

    summary: str
    arguments: tuple[Argument, ...]
    options: tuple[tuple[str, tuple[Option, ...]], ...]
    run: Callable[[dict[str, Any]], int | None]
    raw: bool = False
    words: Callable[[Sequence[str]], list[str]] = list  # what is done to the words first


def count(text: str) -> int:
    """A number from 1."""
    try:
        number = int(text)
    except ValueError:
        raise ValueError(f"`{text}` is not a whole number") from None
    if number < 1:
        raise ValueError(f"{number} is less than 1")
    return number


def path(text: str) -> Path:
    return Path(filled(text))


def parse(command: Command, words: Sequence[str], name: str) -> dict[str, Any] | None:
    """The values, those of options that are not given too; None where help is asked for. Raises `UsageError`."""
    options = [option for _, group in command.options for option in group]
    given: dict[str, list[str | bool]] = {}
    loose: list[str] = []
    for option, value in _split(command, options, list(words), name):
        if option is None:
            loose.append(value)
        elif option == HELP:
            return None
        else:
            given.setdefault(option.dest, []).append(value)
    values = _arguments(command, loose, name)
    for option in options:
        said = given.get(option.dest, [])
        if not said and option.required:
            raise UsageError(f"missing option '{option.names[0]}'", name)
        read = [each if isinstance(each, bool) else _read(option.kind, each, option.quoted, name) for each in said]
        values[option.dest] = read if option.many else read[-1] if read else option.default
    return values


def _split(command: Command, options: Sequence[Option], words: list[str], name: str) -> Iterator[tuple[Any, Any]]:
    """(option, its value) in the order given; (None, word) for an argument, (HELP, "") for a question."""
    by_name = {each: (option, True) for option in options for each in option.names}
    by_name |= {option.off: (option, False) for option in options if option.off}
    left = words[::-1]
    while left:
        word = left.pop()
        if word == "--" or (command.raw and word not in HELP):
            yield from ((None, each) for each in ([] if word == "--" else [word]) + left[::-1])
            return
        if word in HELP:
            yield HELP, ""
            return
        if word == "-" or not word.startswith("-"):
            yield None, word
            continue
        if word.startswith("--"):
            text, equals, value = word.partition("=")
            text = text.replace("_", "-")
        else:
            text, equals, value = word[:2], "", word[2:]
        if text in HELP:
            raise UsageError(f"option '{text}' does not take a value", name)
        if text not in by_name:
            raise UsageError(f"no such option: {text}{_meant(text, by_name)}", name)
        option, on = by_name[text]
        if option.metavar:
            if not (equals or value):
                if not left:
                    raise UsageError(f"option '{text}' requires an argument", name)
                value = left.pop()
            yield option, value
        elif equals:
            raise UsageError(f"option '{text}' does not take a value", name)
        else:
            yield option, on
            if value:
                left.append(f"-{value}")


def _arguments(command: Command, loose: list[str], name: str) -> dict[str, Any]:
    values: dict[str, Any] = {}
    left = loose[::-1]
    for argument in command.arguments:
        said = left[::-1] if argument.many else [left.pop()] if left else []
        if argument.many:
            left = []
        if not said and argument.required:
            raise UsageError(f"missing argument '{argument.metavar}'", name)
        read = [_read(argument.kind, each, f"'{argument.metavar}'", name) for each in said]
        values[argument.dest] = read if argument.many else read[0] if read else None
    if left:
        raise UsageError(f"got unexpected extra argument(s) ({' '.join(left[::-1])})", name)
    return values


def _read(kind: Callable[[str], Any], text: str, what: str, name: str) -> Any:
    try:
        return kind(text)
    except ValueError as problem:
        fault = BadValue(what, str(problem))
        fault.command = name
        raise fault from None


def _meant(text: str, known: Iterable[str]) -> str:
    """The long option that was probably meant, in brackets."""
    from ..dsl.nearest import nearest

    near = nearest(text.lstrip("-"), [name.removeprefix("--") for name in known if name.startswith("--")]) if text.startswith("--") else None
    return f" (did you mean --{near}?)" if near else ""
