"""The command line: arguments in, exit code out. What is heavy is imported by the command that needs it.

Exit codes: 0 done, 1 failed with a diagnostic, 2 usage; stopped by a signal 130 (SIGINT), 143 (SIGTERM), 129 (SIGHUP).
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from . import __version__
from .cli import convert as cli_convert
from .cli import mappings as cli_mappings
from .cli import nemo as cli_nemo
from .cli import options
from .cli import tokenizer as cli_tokenizer
from .cli import verify as cli_verify
from .cli import zero1 as cli_zero1
from .runtime.stopping import Stop, stoppable

USAGE, INTERRUPTED = 2, 130

app = typer.Typer(
    name="ckptc",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={
        "help_option_names": ["--help", "-h"],
        "token_normalize_func": lambda text: text.replace("_", "-"),
    },
)

app.command("convert")(cli_convert.convert)
app.command("compile")(cli_convert.compile)
app.command("run")(cli_convert.run)
app.command("zero1")(cli_zero1.zero1)
app.command("verify")(cli_verify.verify)
app.command("diff")(cli_verify.diff)
app.command("explain")(cli_mappings.explain)
app.command("check")(cli_mappings.check)
app.command("fmt")(cli_mappings.fmt)
app.command("list")(cli_mappings.list_)
app.command("show")(cli_mappings.show)
app.add_typer(cli_tokenizer.app)
app.add_typer(cli_nemo.app)


def _say_version(asked: bool) -> None:
    if asked:
        print(f"ckptc {__version__}")
        raise typer.Exit


@app.callback()
def ckptc(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version.", is_eager=True, callback=_say_version)
    ] = False,
) -> None:
    """The checkpoint compiler: converts LLM weights between frameworks and parallel layouts, proved and streamed."""


@app.command()
def inspect(
    path: Annotated[
        str,
        typer.Argument(metavar="PATH", help="A folder, a file, or ORG/NAME on the hub.", show_default=False),
    ],
    config: options.Config = None,
    mapping: cli_convert.Mapping = None,
    revision: options.Revision = None,
    json: options.Json = False,
) -> None:
    """Say what a checkpoint is, from its headers."""
    from .survey import describe, survey

    found = survey(path, config, revision, progress=not json, mapping=mapping)
    print(_json(found) if json else describe(found))


# Everything after SCRIPT belongs to the script, its --help too.
@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def compat(
    script: Annotated[
        str | None,
        typer.Argument(metavar="SCRIPT", help="The script, such as checkpoint_converter.py; `python3` or a launcher before it is skipped.", show_default=False),
    ] = None,
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGS...", help="The script's own arguments.")
    ] = None,
) -> None:
    """Do a framework script's work, with its arguments. Without SCRIPT, list the scripts."""
    from .compat.scripts import listing, run_script

    if script is None:
        print(listing())
        return
    run_script(script, arguments or [], invoke)


@app.command()
def version(json: options.Json = False) -> None:
    """Print the version."""
    print(_json({"version": __version__}) if json else f"ckptc {__version__}")


def _json(data: object) -> str:
    import json

    return json.dumps(data, indent=2)


def invoke(arguments: list[str]) -> int:
    """Run one command line; whatever goes wrong is raised. The exit code."""
    code = app(arguments or ["--help"], prog_name="ckptc", standalone_mode=False)
    sys.stdout.flush()
    if code == INTERRUPTED:  # typer has already made an exit code of it
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def main(arguments: list[str] | None = None) -> None:
    """Run one command line and leave the process with its exit code. Never shows a traceback by itself."""
    arguments = sys.argv[1:] if arguments is None else arguments
    stop = Stop()
    try:
        with stoppable() as stop:
            code = invoke(arguments) or (0 if arguments else USAGE)
    except SystemExit:
        raise
    except BaseException as error:
        from .failure import report

        code = report(error, "--json" in arguments, stop.exit_code)
    sys.exit(code)
