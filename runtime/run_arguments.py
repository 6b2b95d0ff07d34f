"""What a run of Megatron-LM was started with: the `args` that its checkpoints hold, as plain values.

They are an argparse.Namespace of numbers, words and objects of the framework (megatron/training/checkpointing.py). What
is not plain is left out; dtypes are given by their names.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .distributed import Folder
from .megatron_file import ARGS, VERSION
from .stacked import DISTRIBUTED
from .torch_dist import read_common
from .torch_file import read_value
from .torch_globals import Stray, Token

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

NAMESPACE = "argparse.Namespace"
_PLAIN = (str, int, float, bool, type(None))


def place_of_arguments(checkpoint: Checkpoint) -> str:
    """What holds the arguments: a rank's file, or a distributed checkpoint's folder. "" if nothing does."""
    place = _place(checkpoint)
    return place if place and read_arguments(place) else ""


def read_arguments(place: str) -> dict[str, Any] | None:
    """The arguments that a rank's file or a distributed checkpoint's folder holds."""
    return arguments_of(_top(place))


def checkpoint_version(checkpoint: Checkpoint) -> float | None:
    """The version of a rank file's form, by which rows of query, key and value are ordered. None if it says none."""
    place = _place(checkpoint) if checkpoint.format == "pt" else ""
    top = _top(place) if place else None
    said = top.get(VERSION) if isinstance(top, dict) else None
    return float(said) if type(said) in (int, float) else None


def _place(checkpoint: Checkpoint) -> str:
    if checkpoint.format in DISTRIBUTED and not checkpoint.archive:
        return os.path.join(checkpoint.path, checkpoint.tag, checkpoint.entries[0].file)
    held = {key for _, key in checkpoint.others}
    return checkpoint.entries[0].window.path if checkpoint.format == "pt" and {ARGS, VERSION} & held else ""


def _top(place: str) -> Any:
    """All that stands around the tensors. Objects of classes are `Stray`."""
    if os.path.isdir(place):
        return read_common(Folder(place).place, "")
    return read_value(place, place, strays=[])[1]


def arguments_of(top: Any) -> dict[str, Any] | None:
    """The `args` of what a file of such a run holds; None if it holds none."""
    args = top.get(ARGS) if isinstance(top, dict) else None
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
