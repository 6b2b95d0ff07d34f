"""A command line in; the command that it names run, and its exit code, out. A command's module is imported when it is named."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .. import __version__
from ..usage import UsageError

ABOUT = "The checkpoint compiler: converts LLM weights between frameworks and parallel layouts, proved and streamed."
VERSION = ("--version", "-V")
# Each command by its words: its module and its name there, and its summary's first sentence.
COMMANDS = {
    "convert": ("cli.convert", "CONVERT", "Convert a checkpoint to another layout or degree."),
    "compile": ("cli.convert", "COMPILE", "Compile and prove a plan without a checkpoint."),
    "run": ("cli.convert", "RUN", "Run a saved plan on a checkpoint."),
    "zero1": ("cli.zero1", "ZERO1", "Change the data parallel degree of NxD's zero1 optimizer state."),
    "explain": ("cli.mappings", "EXPLAIN", "Say where one tensor's elements go or come from."),
    "check": ("cli.mappings", "CHECK", "Find what is wrong with mapping files under any sizes."),
    "fmt": ("cli.mappings", "FMT", "Bring mapping files into their canonical form."),
    "list": ("cli.mappings", "LIST", "List families and layouts, or a layout's parameters."),
    "inspect": ("cli.others", "INSPECT", "Say what a checkpoint is, from its headers."),
    "compat": ("compat.command", "COMPAT", "Do a framework script's work, with its arguments. Without SCRIPT, list the scripts."),
    "version": ("cli.others", "VERSION", "Print the version."),
    "verify": ("cli.verify", "VERIFY", "Say whether DST holds exactly what SRC holds, whoever wrote it."),
    "diff": ("cli.verify", "DIFF", "Compare two checkpoints of the same names, tensor by tensor, without any mapping."),
    "show": ("cli.mappings", "SHOW", "Print a layout with all that it inherits, for one family and the parameters given."),
    "tokenizer to-hf": ("cli.tokenizer", "TO_HF", "Write a SentencePiece model as HuggingFace's tokenizer."),
    "tokenizer add-special-tokens": ("cli.tokenizer", "ADD_SPECIAL_TOKENS", "Add tokens to a SentencePiece model."),
    "nemo strategy-args": ("cli.nemo", "STRATEGY_ARGS", "Print MegatronStrategy's arguments for a NeMo 1 config."),
}
GROUPS = {"tokenizer": "Change a tokenizer.", "nemo": "Move settings from NeMo 1 to NeMo 2."}


def invoke(arguments: Sequence[str]) -> int:
    """Run one command line; whatever goes wrong is raised. The exit code."""
    code = _invoke(list(arguments) or ["--help"])
    sys.stdout.flush()
    return code


def _invoke(words: list[str]) -> int:
    if words[0] in VERSION:
        print(f"ckptc {__version__}")
        return 0
    if words[0] in GROUPS and not words[1:]:
        raise UsageError("missing command", f"ckptc {words[0]}")
    group = words[0] if words[0] in GROUPS else ""
    name = " ".join([group, words[1].replace("_", "-")] if group else [words[0].replace("_", "-")])
    rest = words[2:] if group else words[1:]
    path = f"ckptc {group}".rstrip()
    last = name.rpartition(" ")[2]
    if last in ("--help", "-h"):
        print(_index(group))
        return 0
    if last.startswith("-"):
        option, equals, _ = last.partition("=")
        known = option in ("--help", *VERSION[: 0 if group else None])
        raise UsageError(f"option '{option}' does not take a value" if known and equals else f"no such option: {option}", path)
    if not last:
        raise UsageError("the name of the command is empty", path)
    if name not in COMMANDS:
        raise UsageError(f"no such command '{last}'{_meant(name, group)}", path)
    return _run(name, rest)


def _run(name: str, words: list[str]) -> int:
    from importlib import import_module

    from .parse import Command, parse

    module, attribute, _ = COMMANDS[name]
    command: Command = getattr(import_module(f"ckptc.{module}"), attribute)
    try:
        said = parse(command, command.words(words), f"ckptc {name}")
        if said is not None:
            return command.run(said) or 0
    except UsageError as error:
        error.command = error.command or (f"ckptc {name}" if error.of_option else "")
        raise
    from .page import page

    print(page(f"ckptc {name}", command))
    return 0


def _index(group: str) -> str:
    """The commands of a group, or all, groups by their names."""
    from .page import index

    if group:
        inner = [(name.partition(" ")[2], about) for name, (_, _, about) in COMMANDS.items() if name.startswith(f"{group} ")]
        return index(f"ckptc {group}", GROUPS[group], inner)
    plain = [(name, about) for name, (_, _, about) in COMMANDS.items() if " " not in name]
    return index("ckptc", ABOUT, [*plain, *GROUPS.items()], [(", ".join(VERSION[::-1]), "Print the version.")])


def _meant(name: str, group: str) -> str:
    from ..dsl.nearest import nearest

    known = [each.rpartition(" ")[2] for each in COMMANDS if each.startswith(f"{group} ")] if group else [*COMMANDS, *GROUPS]
    near = nearest(name.rpartition(" ")[2], known)
    return f" (did you mean '{near}'?)" if near else ""
