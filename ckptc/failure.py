"""Exceptions in; diagnostics, their text for a person or records for `--json`, and exit codes out."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

from .dsl.diagnostic import Diagnostic, MappingError
from .runtime.fault import Fault

FAILED, USAGE, INTERRUPTED = 1, 2, 130


class UsageError(Exception):
    """A command line that says nothing sensible: one sentence, exit code 2."""


class Interrupted(BaseException):
    """A signal stopped a run that keeps what it has finished, and says so. Parsers of command lines make nothing else of it."""


def diagnostics(error: MappingError | Fault) -> tuple[Diagnostic, ...]:
    """A runtime fault is a diagnostic without a place in a mapping file."""
    if isinstance(error, MappingError):
        return error.diagnostics
    return (Diagnostic(error.code, error.title, notes=error.notes, help=error.help),)


def text(error: MappingError | Fault, color: bool = False) -> str:
    """What a person reads, with the lines of the mapping files that the diagnostics point at."""
    from .dsl.render import render
    from .library.mapping_files import sources

    found = diagnostics(error)
    return render(found, sources(found), color)


def record(error: MappingError | Fault) -> dict[str, Any]:
    """`{"error": first, "others": [...]}`, each as `dsl.render.to_record` has it."""
    from .dsl.render import to_record

    first, *others = [to_record(d) for d in diagnostics(error)]
    return {"error": first, "others": others}


def colored(stream: TextIO) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ


def report(error: BaseException, as_json: bool, stopped: int = INTERRUPTED) -> int:
    """Say what went wrong, once and without a traceback; the exit code, which is `stopped` where a signal came."""
    if isinstance(error, BrokenPipeError):
        _silence(sys.stdout)
        return FAILED
    if (
        isinstance(error, KeyboardInterrupt | Interrupted) or type(error).__name__ == "Abort"
    ):  # what some versions of typer make of it
        return _say("interrupted", str(error) or "interrupted; nothing was left behind", as_json, stopped)
    if isinstance(error, (MappingError, Fault)):
        print(
            json.dumps(record(error), indent=2) if as_json else text(error, colored(sys.stderr)), file=_stream(as_json)
        )
        return FAILED
    if isinstance(error, UsageError) or getattr(error, "exit_code", None) == USAGE:
        return _say("usage", f"ckptc: {_sentence(error)}", as_json, USAGE)
    if os.environ.get("CKPTC_DEBUG"):
        raise error
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return _say("internal-error", f"internal error: {what} (set CKPTC_DEBUG=1 for the traceback)", as_json, FAILED)


def _stream(as_json: bool) -> TextIO:
    return sys.stdout if as_json else sys.stderr


def _say(code: str, sentence: str, as_json: bool, exit_code: int) -> int:
    """In JSON too, the shape is that of a diagnostic."""
    try:
        if as_json:
            print(json.dumps(record(Fault(code, sentence)), indent=2), flush=True)
        else:
            print(sentence, file=sys.stderr, flush=True)
    except OSError:  # the terminal is closed: nobody reads any more
        _silence(sys.stdout, sys.stderr)
    return exit_code


def _silence(*streams: TextIO) -> None:
    """What is still buffered goes nowhere, instead of failing again at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in streams:
        os.dup2(nowhere, stream.fileno())


def _sentence(error: BaseException) -> str:
    """One line: what is wrong with the command line, and where its help is."""
    format_message = getattr(error, "format_message", None)
    message = " ".join(str(format_message() if format_message else error).split()).rstrip(".")
    context = getattr(error, "ctx", None)
    path = getattr(context, "command_path", None)
    message = message[:1].lower() + message[1:] if message[1:2].islower() else message
    return f"{message} (see `{path} --help`)" if path else message
