"""The settings of a model in NeMo 1's words in, the arguments of its config class in NeMo 2 out.

All that NeMo 1 computes with is written, where NeMo 1's own default applies too: NeMo 2's classes have other defaults.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..runtime.fault import Fault
from .fiddle_json import Symbol
from .nemo2_models import MODULE, Family, Model, check_sizes

# NeMo 2's class whose rotary frequencies are scaled as in Llama 3.1.
SCALED = Symbol(f"{MODULE}.llama", "Llama31Config")

NORMS = {"layernorm": ("LayerNorm", False), "layernorm1p": ("LayerNorm", True), "rmsnorm": ("RMSNorm", False)}
DTYPES = ("float32", "float16", "bfloat16")
SIZES = ("num_layers", "hidden_size", "ffn_hidden_size", "num_attention_heads")

# NeMo 2's name, NeMo 1's name, and what NeMo 1 takes where its config says nothing.
ALIKE: tuple[tuple[str, str, Any], ...] = (
    ("seq_length", "encoder_seq_length", 512),
    ("init_method_std", "init_method_std", 0.02),
    ("layernorm_epsilon", "layernorm_epsilon", 1e-5),
    ("hidden_dropout", "hidden_dropout", 0.1),
    ("attention_dropout", "attention_dropout", 0.1),
    ("add_bias_linear", "bias", True),
    ("share_embeddings_and_output_weights", "share_embeddings_and_output_weights", True),
    ("make_vocab_size_divisible_by", "make_vocab_size_divisible_by", 128),
    ("rotary_base", "rotary_base", 10000),
    ("rotary_percent", "rotary_percentage", 1.0),
    ("seq_len_interpolation_factor", "seq_len_interpolation_factor", None),
)
# Written only where NeMo 1's config says it and it is not null.
IF_SAID = ("window_size",)
# The scaling of Llama 3.1's rotary frequencies: fields of NeMo 2's Llama31Config, and what NeMo 1 takes by itself.
SCALING = (("scale_factor", 8), ("low_freq_factor", 1), ("high_freq_factor", 4), ("old_context_len", 8192))
OF_EXPERTS = ("moe_router_topk", "moe_router_pre_softmax")
FP8 = ("fp8_margin", "fp8_interval", "fp8_amax_history_len", "fp8_amax_compute_algo")


def config_class(model: Model, config: Mapping[str, Any]) -> Symbol:
    """NeMo 2's config class: the id's, but for rotary frequencies that are scaled as in Llama 3.1."""
    if not config.get("scale_positional_embedding"):
        return model.config
    if model.family.name != "llama" or model.sizes:
        raise Fault(
            "scaled-positions", f"the model scales rotary frequencies as Llama 3.1 does, which {model.name} does not",
            help="give `llama` as the model id",
        )  # fmt: skip
    return SCALED


def config_arguments(model: Model, config: Mapping[str, Any], dtype: str = "bfloat16") -> dict[str, Any]:
    """What the config class is called with. `dtype` is that of the weights."""
    if dtype not in DTYPES:
        raise Fault("bad-dtype", f"NeMo 2's params_dtype is one of {', '.join(DTYPES)}, not {dtype}")
    _check_family(model.family, config)
    sizes = _sizes(config)
    check_sizes(model, sizes)
    out: dict[str, Any] = {key: value for key, value in sizes.items() if key != "num_moe_experts"}
    if sizes["num_moe_experts"]:
        out["num_moe_experts"] = sizes["num_moe_experts"]
    for key, old, usual in ALIKE:
        out[key] = config.get(old, usual)
    if isinstance(out["rotary_base"], float) and out["rotary_base"].is_integer():
        out["rotary_base"] = int(out["rotary_base"])
    out["normalization"], out["layernorm_zero_centered_gamma"] = _norm(config)
    for key in (*IF_SAID, *(OF_EXPERTS if sizes["num_moe_experts"] else ())):
        if config.get(key) is not None:
            out[key] = config[key]
    if config.get("scale_positional_embedding"):
        out.update({key: config.get(key, usual) for key, usual in SCALING})
    if model.family.name == "mistral":
        out.setdefault("window_size", None)
    if config.get("qkv_bias"):
        out["add_qkv_bias"] = True
    out.update(_fp8(config))
    out["fp16"], out["bf16"] = dtype == "float16", dtype == "bfloat16"
    out["params_dtype"] = Symbol("torch", dtype)
    return out


def _sizes(config: Mapping[str, Any]) -> dict[str, int]:
    """The sizes that the weights have, with those that follow from others."""
    for key in SIZES:
        if type(config.get(key)) is not int or config[key] < 1:
            raise Fault("bad-config", f"the model's config has no {key} that is a number above 0", help="name the model's model_config.yaml")
    heads = config["num_attention_heads"]
    return {
        **{key: config[key] for key in SIZES},
        "num_query_groups": config.get("num_query_groups") or heads,
        "kv_channels": config.get("kv_channels") or config["hidden_size"] // heads,
        "num_moe_experts": config.get("num_moe_experts") or 0,
    }


def _norm(config: Mapping[str, Any]) -> tuple[str, bool]:
    name = str(config.get("normalization", "layernorm"))
    if name.lower() not in NORMS:
        raise Fault("bad-config", f"the model's normalization is `{name}`, and must be one of {', '.join(NORMS)}")
    kind, centred = NORMS[name.lower()]
    return kind, centred or bool(config.get("layernorm_zero_centered_gamma"))


def _check_family(family: Family, config: Mapping[str, Any]) -> None:
    """Faults for what the family's classes in NeMo 2 fix and the model has otherwise."""
    activation = str(config.get("activation", "gelu"))
    if activation not in family.activations:
        raise Fault(
            "other-family", f"the model's activation is {activation}, and {family.name} models have {family.activations[0]}",
            help="give the model id, or the family, of this model",
        )  # fmt: skip
    places = config.get("position_embedding_type", "learned_absolute")
    if places != "rope":
        raise Fault(
            "other-family", f"the model's position_embedding_type is {places}, and {family.name} models have rope",
            help="give the model id, or the family, of this model",
        )  # fmt: skip
    experts = config.get("num_moe_experts") or 0
    if bool(experts) != (family.name == "mixtral"):
        raise Fault(
            "other-family", f"the model has {experts} experts, which is no {family.name} model",
            help="give `mixtral` for a model with experts, and another family for one without",
        )  # fmt: skip


def _fp8(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of 8-bit floating point arithmetic, where the model was trained with it."""
    if not config.get("fp8"):
        return {}
    kind = "e4m3" if config.get("fp8_e4m3") else "hybrid" if config.get("fp8_hybrid") else None
    if kind is None:
        raise Fault("bad-config", "the model's config has fp8 and neither fp8_e4m3 nor fp8_hybrid", help="set one of them to true")
    return {"fp8": kind, **{key: config[key] for key in FP8 if key in config}}
