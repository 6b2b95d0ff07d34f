"""`ckptc compat`: a framework script's name and arguments in, its work done."""

from __future__ import annotations

from typing import Any

from ..cli.commands import invoke
from ..cli.parse import Argument, Command

SCRIPT = Argument("SCRIPT", "The script, such as checkpoint_converter.py; `python3` or a launcher before it is skipped.", required=False)
ARGS = Argument("ARGS...", "The script's own arguments.", str, required=False, many=True)


def compat(said: dict[str, Any]) -> None:
    from .scripts import listing, run_script

    if said[SCRIPT.dest] is None:
        print(listing())
        return
    run_script(said[SCRIPT.dest], said[ARGS.dest], invoke)


COMPAT = Command("Do a framework script's work, with its arguments. Without SCRIPT, list the scripts.", (SCRIPT, ARGS), (), compat, raw=True)
