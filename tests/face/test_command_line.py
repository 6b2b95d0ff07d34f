"""Words of a command line to values, and pages of help."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest

from ckptc.cli import commands
from ckptc.cli.page import page
from ckptc.cli.parse import Argument, Command, Option, count, parse
from ckptc.usage import UsageError

MADE = Command(
    "Make a thing.",
    (Argument("SRC", "What to read."), Argument("MORE", "What else.", required=False, many=True)),
    (
        (
            "Options",
            (
                Option(("--to", "--towards"), "Where to.", "PLACE", required=True),
                Option(("--tp",), "How many.", "N", count, 3),
                Option(("--set",), "What.", "KEY=VALUE", many=True),
                Option(("--quiet", "-q"), "Less.", default=False),
                Option(("-o", "--output"), "Where.", "FILE"),
                Option(("--progress",), "Show it.", default=True, off="--no-progress"),
            ),
        ),
    ),
    lambda said: 0,
)
BARE = {"src": "a", "more": [], "to": "x", "tp": 3, "set": [], "quiet": False, "output": None, "progress": True}


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["a", "--to", "x"], {}),
        (["--to=x", "a"], {}),
        (["--towards", "y", "--to", "x", "a"], {}),
        (["a", "--to", "x", "--tp=5", "-q"], {"tp": 5, "quiet": True}),
        (["a", "--to", "-x"], {"to": "-x"}),
        (["a", "--to", "x", "--set", "b=1", "--set=c=2"], {"set": ["b=1", "c=2"]}),
        (["a", "--to", "x", "-qo", "f"], {"quiet": True, "output": "f"}),
        (["a", "--to", "x", "-of"], {"output": "f"}),
        (["a", "--to", "x", "--no_progress"], {"progress": False}),
        (["--to", "x", "--", "-q", "b", "--tp"], {"src": "-q", "more": ["b", "--tp"]}),
        (["-", "--to", "x"], {"src": "-"}),
    ],
)
def test_words_become_values(words: list[str], values: dict[str, Any]) -> None:
    assert parse(MADE, words, "make") == {**BARE, **values}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "missing argument 'SRC'"),
        (["a"], "missing option '--to'"),
        (["a", "--to"], "option '--to' requires an argument"),
        (["a", "--to", "x", "--tp", "none"], "invalid value for '--tp': `none` is not a whole number"),
        (["a", "--to", "x", "--tp", "0"], "invalid value for '--tp': 0 is less than 1"),
        (["a", "--to", "x", "--quiet=no"], "option '--quiet' does not take a value"),
        (["a", "--too", "x"], "no such option: --too (did you mean --to?)"),
        (["a", "--to", "x", "--xyzzy"], "no such option: --xyzzy"),
        (["a", "--to", "x", "--help=3"], "option '--help' does not take a value"),
        (["a", "--to", "x", "-h3"], "option '-h' does not take a value"),
        (["a", "--to="], "invalid value for '--to' / '--towards': it is empty"),
        (["a", "--to", " "], "invalid value for '--to' / '--towards': it is empty"),
        (["a", "--to", "x", "-o", ""], "invalid value for '-o' / '--output': it is empty"),
        (["", "--to", "x"], "invalid value for 'SRC': it is empty"),
        (["a", "--to", "x", "-x"], "no such option: -x"),
        (["a", "--to", "x", "--quite"], "no such option: --quite (did you mean --quiet?)"),
    ],
)
def test_what_makes_no_sense_is_said_in_a_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(UsageError) as fault:
        parse(MADE, words, "make")
    assert (str(fault.value), fault.value.command) == (sentence, "make")


def test_a_script_keeps_its_own_options() -> None:
    raw = MADE._replace(options=(), raw=True)
    assert parse(raw, ["a", "--help", "-x", "--", "b"], "make") == {"src": "a", "more": ["--help", "-x", "--", "b"]}
    assert parse(raw, ["--help"], "make") is None


def test_the_page_of_help_has_every_name_and_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in ("60", "200"):
        monkeypatch.setenv("COLUMNS", columns)
        shown = page("make", MADE)
        assert shown.startswith("Usage: make [OPTIONS] SRC [MORE]\n\n  Make a thing.\n")
        for each in ("--to, --towards PLACE", "--progress / --no-progress", "[required]", "[default: 3]", "-h, --help"):
            assert each in shown
        assert max(map(len, shown.splitlines())) <= min(int(columns), 80)


def test_the_list_of_commands_says_what_each_command_says_of_itself() -> None:
    for name, (module, attribute, about) in commands.COMMANDS.items():
        command = getattr(import_module(f"ckptc.{module}"), attribute)
        assert command.summary.startswith(about), name
        names = [each for _, group in command.options for option in group for each in (*option.names, option.off) if each]
        assert len(names) == len(set(names)), name
