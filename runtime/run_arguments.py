"""What a run of Megatron-LM was started with: the `args` that its checkpoints hold, as plain values.

They are an argparse.Namespace of numbers, words and objects of the framework (megatron/training/checkpointing.py). What
is not plain is left out; dtypes are given by their names.
"""

from __future__ import annotations

from typing import Any

from .torch_globals import Stray, Token

NAMESPACE = "argparse.Namespace"
_PLAIN = (str, int, float, bool, type(None))


def arguments_of(top: Any) -> dict[str, Any] | None:
    """The `args` of what a file of such a run holds; None if it holds none."""
    args = top.get("args") if isinstance(top, dict) else None
    if isinstance(args, Stray) and args.name == NAMESPACE:
        args = args.state
    if not isinstance(args, dict):
        return None
    plain = ((name, _plain(value)) for name, value in args.items() if isinstance(name, str))
    return {name: value for name, value in plain if not isinstance(value, Stray)}


def _plain(value: Any, depth: int = 0) -> Any:
    """The value, if it is plain through and through; else a `Stray`."""
    if isinstance(value, _PLAIN):
        return value
    if isinstance(value, Token) and value.name.startswith("torch."):
        return value.name.removeprefix("torch.")
    if isinstance(value, list | tuple) and depth < 8:
        items = [_plain(each, depth + 1) for each in value]
        if not any(isinstance(each, Stray) for each in items):
            return items
    return Stray("")
