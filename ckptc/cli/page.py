"""A command in; its page of help, in groups and as wide as the terminal, out."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterable, Sequence

from .parse import Argument, Command, Option

WIDEST, COLUMN = 80, 32
HELP = ("-h, --help", "Show this message and exit.")


def page(name: str, command: Command) -> str:
    """All that a command takes."""
    usage = " ".join(_spelled(each) for each in command.arguments)
    parts = [f"Usage: {name} [OPTIONS] {usage}".rstrip(), *_summary(command.summary)]
    if command.arguments:
        parts += _table("Arguments", [(_spelled(each), each.help) for each in command.arguments])
    groups = command.options or (("Options", ()),)
    for at, (title, options) in enumerate(groups):
        rows = [(_names(option), _about(option)) for option in options]
        parts += _table(title, [*rows, HELP] if at == len(groups) - 1 else rows)
    return "\n".join(parts)


def index(name: str, summary: str, commands: Iterable[tuple[str, str]], more: Sequence[tuple[str, str]] = ()) -> str:
    """The commands that there are, and the few options that are no command's."""
    return "\n".join([f"Usage: {name} [OPTIONS] COMMAND [ARGS]...", *_summary(summary), *_table("Options", [*more, HELP]), *_table("Commands", list(commands))])


def _summary(text: str) -> list[str]:
    return ["", *textwrap.wrap(text, _width(), initial_indent="  ", subsequent_indent="  ")]


def _table(title: str, rows: Sequence[tuple[str, str]]) -> list[str]:
    """Names in a column, what they mean beside them; below them where a name is long."""
    column = min(max(len(name) for name, _ in rows) + 4, COLUMN)
    lines = ["", f"{title}:"]
    for name, about in rows:
        start = f"  {name}".ljust(column)
        if len(name) + 4 > column:
            lines.append(f"  {name}")
            start = " " * column
        lines += textwrap.wrap(start + about, _width(), subsequent_indent=" " * column, drop_whitespace=True, break_on_hyphens=False) or [start.rstrip()]
    return lines


def _names(option: Option) -> str:
    short = [name for name in option.names if not name.startswith("--")]
    long = [name for name in option.names if name.startswith("--")]
    return ", ".join([*short, *long]) + (f" / {option.off}" if option.off else "") + (f" {option.metavar}" if option.metavar else "")


def _about(option: Option) -> str:
    default = option.names[0] if option.off and option.default else option.default if option.metavar else None
    notes = (["required"] if option.required else []) + ([f"default: {str(default).lstrip('-')}"] if default is not None else [])
    return option.help + (f"  [{'; '.join(notes)}]" if notes else "")


def _spelled(argument: Argument) -> str:
    return argument.metavar if argument.required else f"[{argument.metavar}]"


def _width() -> int:
    try:
        columns = int(os.environ["COLUMNS"]) if "COLUMNS" in os.environ else os.get_terminal_size(1).columns
    except (ValueError, OSError):
        columns = WIDEST
    return max(40, min(columns, WIDEST))
