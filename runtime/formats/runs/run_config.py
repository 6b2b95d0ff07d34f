"""Megatron-Bridge's run_config.yaml, in an iteration's folder: the model's settings in it, in the words of Megatron-LM's arguments.

    model:
      _target_: megatron.bridge.models.gpt_provider.GPTModelProvider
      num_layers: 32
      num_query_groups: 8
      activation_func: {_target_: torch.nn.functional.silu, _call_: false}
      ...

Keys are fields of Megatron-core's TransformerConfig and of the provider; of late releases' model configs those of
TransformerConfig stand under `transformer`. Source: megatron/bridge/models/gpt_provider.py and
training/utils/checkpoint_utils.py of Megatron-Bridge, megatron/core/transformer/transformer_config.py and
core_transformer_config_from_args of Megatron-LM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...fault import Fault

FILE = "run_config.yaml"
TARGET = "_target_"
MODEL, INNER = "model", "transformer"

# What Megatron-LM's arguments call otherwise.
_RENAMED = {
    "num_moe_experts": "num_experts",
    "seq_length": "max_position_embeddings",  # what the model gets as its longest sequence
    "vocab_size": "padded_vocab_size",
    "rope_scaling": "use_rope_scaling",
    "seq_len_interpolation_factor": "rotary_seq_len_interpolation_factor",
    "layernorm_zero_centered_gamma": "apply_layernorm_1p",
}
# Activations by whether there is a gate: the argument that says them.
_ACTIVATIONS: dict[tuple[str, bool], dict[str, Any]] = {
    ("silu", True): {"swiglu": True, "squared_relu": False},
    ("gelu", False): {"swiglu": False, "squared_relu": False},
    ("squared_relu", False): {"swiglu": False, "squared_relu": True},
}


def is_run_config(content: Any) -> bool:
    """Whether a YAML file's content is such a config: its model is a class of Megatron-Bridge, or is built by one."""
    model = content.get(MODEL) if isinstance(content, Mapping) else None
    return isinstance(model, Mapping) and any(isinstance(model.get(key), str) for key in (TARGET, "_builder_"))


def arguments_of_run(content: Any, path: str) -> dict[str, Any]:
    """The model's settings of a run's config as Megatron-LM's arguments have them, `_target_` being the provider's class.

    Sizes that are null are as TransformerConfig fills them in. Raises `Fault` where `path` holds no model, or one whose
    activation the arguments have no words for.
    """
    if not is_run_config(content):
        raise Fault("bad-config", f"{path} has no `{MODEL}` that says which class of Megatron-Bridge it is", help="pass the model's config with --config")
    model = content[MODEL]
    inner = model.get(INNER)
    fields = {**(inner if isinstance(inner, Mapping) else {}), **{key: value for key, value in model.items() if key != INNER}}
    out = {_RENAMED.get(key, key): _plain(value) for key, value in fields.items() if isinstance(key, str)}
    if fields.get("num_query_groups") is not None:
        out["group_query_attention"] = True
    if fields.get("ffn_hidden_size") is None and type(out.get("hidden_size")) is int:
        out["ffn_hidden_size"] = 4 * out["hidden_size"]
    if fields.get("num_moe_experts") is not None and fields.get("moe_ffn_hidden_size") is None:
        out["moe_ffn_hidden_size"] = out.get("ffn_hidden_size")
    if "share_embeddings_and_output_weights" in fields:
        out["untie_embeddings_and_output_weights"] = not fields["share_embeddings_and_output_weights"]
    else:
        out["untie_embeddings_and_output_weights"] = False
    return out | _activation(fields, path)


def _activation(fields: Mapping[str, Any], path: str) -> dict[str, Any]:
    said = _plain(fields.get("activation_func")) or "gelu"
    name = said.rpartition(".")[2] if isinstance(said, str) else f"{said.get(TARGET)} with arguments of its own" if isinstance(said, dict) else str(said)
    gated = bool(fields.get("gated_linear_unit"))
    if (name, gated) not in _ACTIVATIONS:
        raise Fault(
            "unknown-activation", f"{path} has the activation `{name}`{' with a gate' if gated else ''}, which no family here has",
            notes=("known are silu with a gate, gelu and squared_relu",), help="pass a config with --config if the model has one of these",
        )  # fmt: skip
    return _ACTIVATIONS[name, gated]


def _plain(value: Any) -> Any:
    """The value, or of a function or dtype, which are written as what is not called, its name."""
    if isinstance(value, Mapping) and isinstance(value.get(TARGET), str):
        return value[TARGET].removeprefix("torch.") if value.get("_call_") is False else dict(value)
    return value
