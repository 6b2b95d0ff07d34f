"""What a run of Megatron-LM was started with: the `args` that its checkpoints hold, as plain values.

They are an argparse.Namespace of numbers, words and objects of the framework (megatron/training/checkpointing.py). What
is not plain is left out; dtypes are given by their names. What Megatron-LM fills in by itself is filled in
(validate_args of megatron/training/arguments.py). The run_config.yaml of Megatron-Bridge goes before, as it does there.
"""

from __future__ import annotations

import os
from typing import Any

from ...fault import Fault
from ...files.format import Held
from ...files.places import Folder
from ..distributed.find import DISTRIBUTED
from ..distributed.torch_dist_read import read_common
from ..megatron.rank_file import ARGS, VERSION, qkv_order
from ..torch.pickle_names import Stray, Token
from ..torch.torch_file import read_value
from .run_config import FILE

NAMESPACE = "argparse.Namespace"
SIZE = "num_attention_heads"  # what arguments of a model have
# A layout of pipeline stages, whose `input_data` is the text, or the list for each stage of the kinds of its layers.
STAGES = "megatron.core.transformer.pipeline_parallel_layer_layout.PipelineParallelLayerLayout"
_KINDS = {"embedding": "E", "loss": "L", "decoder": "t", "mtp": "m", 1: "E", 2: "L", 4: "t", 5: "m"}  # LayerType, enums.py
_PLAIN = (str, int, float, bool, type(None))


def place_of_arguments(checkpoint: Held) -> str:
    """What holds the arguments: a run_config.yaml, or `args` of a rank's file or of a distributed checkpoint's folder, as if
    these were a folder. "" if nothing does, or if they say nothing of the model, as where a converter wrote them."""
    place = _place(checkpoint)
    config = os.path.join(place, FILE)
    if place and os.path.isfile(config):
        return config
    return os.path.join(place, ARGS) if place and SIZE in (read_arguments(place) or {}) else ""


def read_arguments(place: str) -> dict[str, Any] | None:
    """The arguments that a rank's file or a distributed checkpoint's folder holds, with what Megatron-LM fills in."""
    found = arguments_of(_top(place))
    return None if found is None else filled_in(found)


def filled_in(args: dict[str, Any]) -> dict[str, Any]:
    """Arguments with those that are null, or that their release did not have, as Megatron-LM takes them: validate_args of
    megatron/training/arguments.py, and load_args_from_checkpoint for what was called otherwise."""
    out = dict(args)

    def fill(name: str, value: Any) -> None:
        if out.get(name) is None and value is not None:
            out[name] = value

    hidden = out.get("hidden_size")
    fill("num_layers", out.get("encoder_num_layers"))
    if type(hidden) is int:
        fill("ffn_hidden_size", int((4 * hidden * 2 / 3) / 64) * 64 if out.get("swiglu") else 4 * hidden)
    if out.get("num_experts") is not None:
        fill("moe_ffn_hidden_size", out.get("ffn_hidden_size"))
    if out.get("use_rotary_position_embeddings"):
        out["position_embedding_type"] = "rope"
    if "disable_bias_linear" in out:
        out["add_bias_linear"] = not out["disable_bias_linear"]
    return out


def said_version(checkpoint: Held) -> float | None:
    """The `checkpoint_version` of Megatron-LM's rank files. None where they have none, which Megatron-LM takes as 0:
    it wrote none at first (load_checkpoint of megatron/training/checkpointing.py). Raises `Fault` where it is no number."""
    place = checkpoint.entries[0].window.path
    top = _top(place)
    said = top.get(VERSION) if isinstance(top, dict) else None
    if isinstance(top, dict) and VERSION in top and type(said) not in (int, float):
        raise _bad_version(place, "is no number")
    return None if said is None else float(said)


def said_order(checkpoint: Held) -> str:
    """How rows of query, key and value are ordered in Megatron-LM's rank files, by their version. Raises `Fault` for a
    version that Megatron-LM does not know."""
    version = said_version(checkpoint)
    order = qkv_order(version or 0.0)
    if order is None:
        raise _bad_version(checkpoint.entries[0].window.path, f"is {version:g}, and Megatron-LM knows 0, 1, 2 and 3")
    return order


def _bad_version(place: str, why: str) -> Fault:
    return Fault(
        "bad-version", f"the `{VERSION}` of `{place}` {why}",
        notes=("it says how rows of query, key and value are ordered",),
        help="say it yourself: --from-set qkv_order=groups (as of version 2 and 3), triples (1) or blocks (0)",
    )  # fmt: skip


def _place(checkpoint: Held) -> str:
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
