"""Exceptions in; diagnostics, their text for a person or records for `--json`, and exit codes out."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, TextIO

from .dsl.diagnostic import Diagnostic, MappingError
from .error import Error
from .runtime.fault import Fault
from .streams import put, silence, why_unwritable
from .usage import UsageError

FAILED, USAGE, INTERRUPTED = 1, 2, 130


class Interrupted(BaseException):
    """A signal stopped a run that keeps what it has finished, and says so."""


def diagnostics(error: Error) -> tuple[Diagnostic, ...]:
    """A runtime fault is a diagnostic without a place in a mapping file."""
    if isinstance(error, MappingError):
        return error.diagnostics
    assert isinstance(error, Fault)
    return (Diagnostic(error.code, error.title, notes=error.notes, help=error.help),)


def text(error: Error, color: bool = False) -> str:
    """What a person reads, with the lines of the mapping files that the diagnostics point at, where these can be read."""
    from .dsl.render import render
    from .library.mapping_files import sources

    found = diagnostics(error)
    try:
        lines = sources(found)
    except OSError:
        lines = {}
    return render(found, lines, color)


def record(error: Error) -> dict[str, Any]:
    """`{"error": first, "others": [...]}`, each as `dsl.render.to_record` has it."""
    from .dsl.render import to_record

    first, *others = [to_record(d) for d in diagnostics(error)]
    return {"error": first, "others": others}


def colored(stream: TextIO) -> bool:
    return stream.isatty() and "NO_COLOR" not in os.environ


def report(error: BaseException, as_json: bool, stopped: int = INTERRUPTED) -> int:
    """Say what went wrong, once and without a traceback; the exit code, which is `stopped` where a signal came."""
    if isinstance(error, BrokenPipeError):
        silence(sys.stdout)
        return FAILED
    if isinstance(error, KeyboardInterrupt | Interrupted):
        return _say("interrupted", str(error) or "interrupted; nothing was left behind", as_json, stopped)
    if isinstance(error, Error):
        put(json.dumps(record(error), indent=2) if as_json else text(error, colored(sys.stderr)), sys.stdout if as_json else sys.stderr)
        return FAILED
    if isinstance(error, UsageError):
        return _say("usage", f"ckptc: {_sentence(error)}", as_json, USAGE)
    if isinstance(error, OSError) and error.filename is None and (why := why_unwritable(sys.stdout)):
        silence(sys.stdout)
        return _say("no-output", f"standard output cannot be written: {why}", False, FAILED)
    if os.environ.get("CKPTC_DEBUG"):
        raise error
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return _say("internal-error", f"internal error: {what} (set CKPTC_DEBUG=1 for the traceback)", as_json, FAILED)


def _say(code: str, sentence: str, as_json: bool, exit_code: int) -> int:
    """In JSON too, the shape is that of a diagnostic."""
    put(json.dumps(record(Fault(code, sentence)), indent=2) if as_json else sentence, sys.stdout if as_json else sys.stderr)
    return exit_code


def _sentence(error: UsageError) -> str:
    """One line: what is wrong with the command line, and where its help is."""
    message = " ".join(str(error).split()).rstrip(".")
    message = message[:1].lower() + message[1:] if message[1:2].islower() else message
    return f"{message} (see `{error.command} --help`)" if error.command else message
