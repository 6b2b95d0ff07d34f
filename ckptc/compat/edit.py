"""A plan for .nemo files in, the same plan with another model_config.yaml or other artifacts out."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..configs.config_file import read_config
from ..configs.yaml_text import has_scalar, set_scalar, value_at
from ..nemo.artifacts import REFERENCE, name_artifacts
from ..nemo.tokenizer import NOTE
from ..runtime.fault import Fault
from ..runtime.files.window import SideFile
from ..runtime.formats.nemo.archive import CONFIG, unwrap
from ..runtime.formats.nemo.interpolation import plain

if TYPE_CHECKING:
    from ..api import Plan

# What follows from a HuggingFace config and the files that are written, whatever a base config says.
FOLLOWS = (
    "mcore_gpt", "transformer_engine", "tensor_model_parallel_size", "pipeline_model_parallel_size",
    "virtual_pipeline_model_parallel_size", "encoder_seq_length", "max_position_embeddings", "num_layers", "hidden_size",
    "ffn_hidden_size", "num_attention_heads", "num_query_groups", "kv_channels", "init_method_std", "layernorm_epsilon",
    "normalization", "activation", "bias", "qkv_bias", "rotary_base", "rotary_percentage", "position_embedding_type",
    "seq_len_interpolation_factor", "scale_positional_embedding", "window_size", "share_embeddings_and_output_weights",
    "make_vocab_size_divisible_by", "override_vocab_size", "precision", "tokenizer",
)  # fmt: skip

TOKENIZER = ("library", "type", "model")

# The same below a top key, of models that have it.
FOLLOWS_WITHIN = (
    ("mm_cfg", "mm_mlp_adapter_type"), ("mm_cfg", "model_type"), ("mm_cfg", "llm", "model_type"), ("mm_cfg", "vision_encoder", "from_pretrained"),
    ("mm_cfg", "vision_encoder", "hidden_size"), ("data", "image_token_len"), ("data", "conv_template"),
)  # fmt: skip


def _text(plan: Plan) -> str:
    return dict(plan.data.files)[CONFIG]


def _config(plan: Plan) -> dict[str, Any]:
    import yaml

    return dict(yaml.safe_load(_text(plan)))


def _with(plan: Plan, text: str, extra: tuple[SideFile, ...] | None = None) -> Plan:
    files = tuple((name, text if name == CONFIG else old) for name, old in plan.data.files)
    if extra is None:
        return replace(plan, data=replace(plan.data, files=files))
    # All that goes along is among these: nothing more is chosen from beside the source.
    return replace(plan, data=replace(plan.data, files=files, target=replace(plan.data.target, carry=())), extra=extra)


def _dump(config: Mapping[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True))


def settings(plan: Plan, values: Mapping[str, Any]) -> Plan:
    """Top keys of the config set; numbers that are given as text are numbers."""
    text, config = _text(plan), _config(plan)
    for key, value in values.items():
        value = int(value) if isinstance(value, str) and value.isdecimal() else value
        if key not in config or config[key] != value:
            text = set_scalar(text, (key,), value)
    return _with(plan, text)


def edit(plan: Plan, values: Mapping[str, Any], notes: list[str]) -> Plan:
    """`settings`, with a note of those that change, as the native command leaves them as they are."""
    edited = settings(plan, values)
    old, new = _config(plan), _config(edited)
    changed = [f"{key} is {json.dumps(new[key])}" for key in values if key not in old or old[key] != new[key]]
    notes += [f"the config is edited, which the printed command does not do: {', '.join(changed)}"] if changed else []
    return edited


def batch_size(plan: Plan, ranks: int) -> dict[str, Any]:
    """What a change of degrees does to other settings: no virtual stages, and a global batch that the micro batches fill."""
    config = _config(plan)
    out = {"virtual_pipeline_model_parallel_size": None} if config.get("virtual_pipeline_model_parallel_size") else {}
    micro, whole = config.get("micro_batch_size"), config.get("global_batch_size")
    if type(micro) is int and type(whole) is int and micro > 0 and (whole % (micro * ranks) or whole < micro * ranks):
        return {**out, "global_batch_size": micro * ranks}
    return out


def artifact(plan: Plan, keys: tuple[str, ...], path: str) -> Plan:
    """The file at `path` in the place of the artifact that the config names at `keys`."""
    if not os.path.isfile(path):
        raise Fault("no-file", f"there is no file `{path}`", help="name the tokenizer's file")
    text = _text(plan)
    if keys == ("tokenizer", "model") and any(note.startswith(NOTE) for note in plan.notes):  # HuggingFace's was taken for lack of one
        own = {key: value for key, value in _config(plan)["tokenizer"].items() if key != "use_fast"}
        text = _dump({**_config(plan), "tokenizer": {**own, "library": "sentencepiece", "type": None}})
    if not has_scalar(text, keys):
        config = _config(plan)
        node = config.get(keys[0])
        text = _dump({**config, keys[0]: {**(node if isinstance(node, dict) else {}), keys[1]: None}})
    old = str(value_at(_config(plan), keys) or "").removeprefix(REFERENCE)
    base = os.path.basename(path)
    extra = tuple(each for each in plan.extra if each.name not in (old, base))
    text = set_scalar(text, keys, base)
    if old and value_at(_config(plan), ("tokenizer", "tokenizer_model")) == f"{REFERENCE}{old}":
        text = set_scalar(text, ("tokenizer", "tokenizer_model"), base)
    text, named = name_artifacts(text, (*extra, SideFile(base, os.path.abspath(path), 0, os.path.getsize(path))), extra)
    stale = f"the config's {'.'.join(keys)} is "
    plan = _other_tokenizer(plan)
    return _with(replace(plan, notes=tuple(note for note in plan.notes if not note.startswith(stale))), text, named)


def read_base(path: str) -> dict[str, Any]:
    """The model's settings of a YAML file that a config is to be based on."""
    base: dict[str, Any] = plain(unwrap(read_config(path)))
    if bool(base.get("mcore_gpt")) != bool(base.get("transformer_engine")):
        raise Fault(
            "bad-config", f"{path} has only one of mcore_gpt and transformer_engine on, which the script refuses",
            help="set both to true, or both to false",
        )  # fmt: skip
    return base


def onto(plan: Plan, base: Mapping[str, Any]) -> Plan:
    """The config with the base's settings, but for those that follow from the model."""
    own = _config(plan)
    merged = {**own, **{key: value for key, value in base.items() if key not in FOLLOWS}}
    for keys in FOLLOWS_WITHIN:
        if value_at(own, keys) is not None:
            merged = _put(merged, keys, value_at(own, keys))
    tokenizer = base.get("tokenizer")
    if isinstance(tokenizer, dict):
        named = {key: own["tokenizer"].get(key) for key in TOKENIZER}
        merged["tokenizer"] = {**own["tokenizer"], **tokenizer, **named}
    return _with(plan, _dump(merged))


def _put(config: Mapping[str, Any], keys: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The config with the value at a path, which need not be there yet."""
    if len(keys) == 1:
        return {**config, keys[0]: value}
    inner = config.get(keys[0])
    return {**config, keys[0]: _put(inner if isinstance(inner, Mapping) else {}, keys[1:], value)}


def say_not_taken(plan: Plan, base: Mapping[str, Any], path: str) -> list[str]:
    """A note that names the settings of the base that the config does not have, as they follow from the model."""
    config = _config(plan)
    keys = [(key,) for key in FOLLOWS if key not in ("tokenizer", "precision")] + [*FOLLOWS_WITHIN, *(("tokenizer", key) for key in TOKENIZER)]
    differing = [".".join(each) for each in keys if value_at(base, each) not in (None, value_at(config, each))]
    return [f"not taken from {path}, as they follow from the model: {', '.join(differing)}"] if differing else []


def tokenizer_name(plan: Plan) -> str:
    """The name in the archive of the config's tokenizer model; empty where it holds none."""
    said = str(value_at(_config(plan), ("tokenizer", "model")) or "")
    return said.removeprefix(REFERENCE) if said.startswith(REFERENCE) else ""


def holds_tokenizer(plan: Plan) -> bool:
    return bool(tokenizer_name(plan))


def hf_tokenizer(plan: Plan, place: str, **more: Any) -> Plan:
    """The config with HuggingFace's tokenizer at `place`."""
    config = _config(plan)
    config["tokenizer"] = {**config["tokenizer"], "library": "huggingface", "type": place, "model": None, "use_fast": True, **more}
    return _with(_other_tokenizer(plan), _dump(config))


def _other_tokenizer(plan: Plan) -> Plan:
    """The plan without what it says of a tokenizer that another takes the place of."""
    return replace(plan, notes=tuple(note for note in plan.notes if not note.startswith(NOTE)))
