"""`ckptc nemo`: what of NeMo 1's settings NeMo 2 says in other words."""

from __future__ import annotations

import json
from typing import Any

from .options import JSON
from .parse import Argument, Command


def strategy_args(said: dict[str, Any]) -> None:
    from ..nemo.strategy import as_data, read_strategy, shown

    strategy = read_strategy(said["file"])
    print(json.dumps(as_data(strategy), indent=2) if said["json"] else shown(strategy))


STRATEGY_ARGS = Command(
    "Print MegatronStrategy's arguments for a NeMo 1 config.",
    (Argument("FILE", "A model_config.yaml, a training YAML, or a .nemo archive."),),
    (("Options", (JSON,)),),
    strategy_args,
)
