"""What a run of Megatron-LM was started with: the `args` that its checkpoints hold, as plain values.

They are an argparse.Namespace of numbers, words and objects of the framework (megatron/training/checkpointing.py). What
is not plain is left out; dtypes are given by their names, and a layout of stages by the text that it was made from.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .distributed import Folder
from .fault import Fault
from .megatron_file import ARGS, VERSION, qkv_order
from .stacked import DISTRIBUTED
from .torch_dist import read_common
from .torch_file import read_value
from .torch_globals import Stray, Token

if TYPE_CHECKING:
    from .checkpoint import Checkpoint

NAMESPACE = "argparse.Namespace"
SIZE = "num_attention_heads"  # what arguments of a model have
# A layout of pipeline stages, whose `input_data` is the text, or the list for each stage of the kinds of its layers.
STAGES = "megatron.core.transformer.pipeline_parallel_layer_layout.PipelineParallelLayerLayout"
_KINDS = {"embedding": "E", "loss": "L", "decoder": "t", "mtp": "m", 1: "E", 2: "L", 4: "t", 5: "m"}  # LayerType, enums.py
_PLAIN = (str, int, float, bool, type(None))


def place_of_arguments(checkpoint: Checkpoint) -> str:
    """What holds the arguments: a rank's file, or a distributed checkpoint's folder. "" if nothing does, or if they say
    nothing of the model, as where a converter wrote them."""
    place = _place(checkpoint)
    return place if place and SIZE in (read_arguments(place) or {}) else ""


def read_arguments(place: str) -> dict[str, Any] | None:
    """The arguments that a rank's file or a distributed checkpoint's folder holds."""
    return arguments_of(_top(place))


def said_order(checkpoint: Checkpoint) -> str | None:
    """How rows of query, key and value are ordered, as the version of the rank files says. None for other checkpoints.

    Megatron-LM wrote no version at first: files with arguments and without one are of version 0, for it as well.
    """
    place = _place(checkpoint) if checkpoint.format == "pt" else ""
    if not place:
        return None
    said = _top(place).get(VERSION, 0.0)
    if type(said) not in (int, float):
        raise Fault("bad-version", f"`{place}` has no number as its `{VERSION}`", help="say how query, key and value are ordered: --from-set qkv_order=groups")
    return qkv_order(float(said))


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
    if isinstance(value, Stray) and value.name == STAGES and isinstance(value.state, dict):
        return _stages(value.state.get("input_data"))
    if isinstance(value, list | tuple) and depth < 8:
        items = [_plain(each, depth + 1) for each in value]
        if not any(isinstance(each, Stray) for each in items):
            return items
    return Stray("")


def _stages(made_from: Any) -> Any:
    """A layout of stages as a text; a `Stray` for what is none."""
    if isinstance(made_from, str):
        return made_from
    if not isinstance(made_from, list) or not all(isinstance(stage, list) for stage in made_from):
        return Stray("")
    kinds = [[_kind(each) for each in stage] for stage in made_from]
    return Stray("") if any(kind is None for stage in kinds for kind in stage) else "|".join("".join(map(str, stage)) for stage in kinds)


def _kind(layer: Any) -> str | None:
    """The letter of a kind of layer, said in a word or as the number of an enum's member."""
    said = layer.args[0] if isinstance(layer, Stray) and len(layer.args) == 1 else layer
    return _KINDS.get(said) if type(said) in (str, int) else None
