"""`ckptc nemo`: what of NeMo 1's settings NeMo 2 says in other words."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from . import options

app = typer.Typer(name="nemo", help="Move settings from NeMo 1 to NeMo 2.", rich_markup_mode=None)


@app.callback()
def nemo() -> None:
    """Move settings from NeMo 1 to NeMo 2."""


@app.command("strategy-args")
def strategy_args(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="A model_config.yaml, a training YAML, or a .nemo archive.", show_default=False
        ),
    ],
    as_json: options.Json = False,
) -> None:
    """Print MegatronStrategy's arguments for a NeMo 1 config."""
    from ..nemo.strategy import as_data, read_strategy, shown

    strategy = read_strategy(file)
    print(json.dumps(as_data(strategy), indent=2) if as_json else shown(strategy))
