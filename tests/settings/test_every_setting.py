"""Every setting of a framework's config class that changes what a model computes: flipped, none passes in silence.

`settings.json` has the settings by config class, each with values that are not neutral. They were read off the classes and
argument parsers themselves: transformers 4.57 and 5.24 (configuration_*.py), Megatron-LM from 2021 to core 0.19
(megatron/training/arguments.py, core/transformer/transformer_config.py), NeMo 1.17 to 2.5 (nemo/collections/nlp,
nemo/collections/llm) and NxD Training (megatron style).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ckptc.compiler.settle.resolve import resolve
from ckptc.compiler.settle.said import check_said
from ckptc.compiler.settle.sizes import bind_sizes
from ckptc.dsl.diagnostic import MappingError
from ckptc.library import mapping_files as library

SETTINGS: dict[str, dict[str, list[Any]]] = json.loads((Path(__file__).parent / "settings.json").read_text())
FAMILIES = {family.name: family for family in library.families(None)}
SIZES = {"vocab_size": 50, "num_hidden_layers": 4, "hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 6}
COMMON = {**SIZES, "num_key_value_heads": 2, "head_dim": 4, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "max_position_embeddings": 64,
          "tie_word_embeddings": False, "hidden_act": "silu"}  # fmt: skip
BY_ONE = {**{k: v for k, v in COMMON.items() if k != "rms_norm_eps"}, "layer_norm_eps": 1e-5}
NORMED = {**{k: v for k, v in COMMON.items() if k != "hidden_act"}, "hidden_activation": "gelu_pytorch_tanh"}
EXPERTS = {"num_experts": 4, "moe_intermediate_size": 8, "num_experts_per_tok": 2}
LINEAR = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 5, "linear_value_head_dim": 3, "linear_conv_kernel_dim": 4, "partial_rotary_factor": 0.5,
}  # fmt: skip
LATENT = {
    **SIZES, "moe_intermediate_size": 8, "num_key_value_heads": 6, "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2,
    "first_k_dense_replace": 1, "q_lora_rank": 12, "kv_lora_rank": 10, "qk_nope_head_dim": 6, "qk_rope_head_dim": 4, "v_head_dim": 8, "n_group": 2,
    "topk_group": 1, "routed_scaling_factor": 3.5, "rms_norm_eps": 1e-6, "rope_theta": 1e4, "max_position_embeddings": 64, "tie_word_embeddings": False,
    "hidden_act": "silu",
}  # fmt: skip
LATENT_ONLY = {k: v for k, v in LATENT.items() if not k.startswith(("n_", "moe_", "first_k", "topk", "routed", "num_experts"))}
ROUTED = {
    "n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "n_group": 2, "topk_group": 1,
    "routed_scaling_factor": 3.5, "norm_topk_prob": True,
}  # fmt: skip
ARGS = {
    "num_layers": 4, "hidden_size": 24, "ffn_hidden_size": 40, "num_attention_heads": 6, "num_query_groups": 2, "group_query_attention": True,
    "kv_channels": 4, "max_position_embeddings": 64, "seq_length": 64, "position_embedding_type": "rope", "rotary_percent": 1.0, "rotary_base": 10000,
    "swiglu": True, "normalization": "RMSNorm", "norm_epsilon": 1e-5, "add_bias_linear": False, "untie_embeddings_and_output_weights": True,
    "padded_vocab_size": 50, "make_vocab_size_divisible_by": 1,
}  # fmt: skip
NEMO = {
    "mcore_gpt": True, "num_layers": 4, "hidden_size": 24, "ffn_hidden_size": 40, "num_attention_heads": 6, "num_query_groups": 2, "kv_channels": 4,
    "max_position_embeddings": 64, "encoder_seq_length": 64, "normalization": "rmsnorm", "layernorm_epsilon": 1e-5, "bias": False,
    "activation": "fast-swiglu", "bias_activation_fusion": False, "position_embedding_type": "rope", "rotary_percentage": 1.0, "rotary_base": 10000,
    "share_embeddings_and_output_weights": False, "make_vocab_size_divisible_by": 1,
}  # fmt: skip
NEMO_2 = {
    "num_layers": 4, "hidden_size": 24, "ffn_hidden_size": 40, "num_attention_heads": 6, "num_query_groups": 2, "kv_channels": 4, "seq_length": 64,
    "normalization": "RMSNorm", "layernorm_epsilon": 1e-5, "add_bias_linear": False, "gated_linear_unit": True,
    "activation_func": {"_target_": "torch.nn.functional.silu"}, "position_embedding_type": "rope", "rotary_base": 10000, "rotary_percent": 1.0,
    "share_embeddings_and_output_weights": False,
}  # fmt: skip
NXDT = {
    "num_layers": 4, "hidden_size": 24, "ffn_hidden_size": 40, "num_attention_heads": 6, "num_kv_heads": 2, "activation": "swiglu",
    "normalization": "rmsnorm", "layernorm_epsilon": 1e-5, "position_embedding_type": "rope", "has_bias": False,
    "share_embeddings_and_output_weights": False, "rotary_percentage": 1.0,
}  # fmt: skip
LLAMA_3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
NEMO_LLAMA = "nemo.collections.llm.gpt.model.llama"


@dataclass(frozen=True)
class Kind:
    """A config class: the family and layout that read it, a config whose settings are neutral, and the key above its keys."""

    settings: str
    family: str
    layout: str
    config: dict[str, Any]
    above: str = ""
    only: str = ""  # only keys that begin so


def kinds() -> list[Kind]:
    def hf(settings: str, family: str, **config: Any) -> Kind:
        return Kind(settings, family, "hf", {"model_type": family, **config})

    def nemo_2(family: str, model: str, **config: Any) -> Kind:
        return Kind("nemo2-gpt", family, "nemo2", {"_target_": model, "config": {**NEMO_2, **config}}, "config.")

    llama = {**COMMON, "model_type": "llama"}
    return [
        hf("LlamaConfig", "llama", **COMMON), hf("MistralConfig", "mistral", **COMMON, sliding_window=None),
        Kind("LlamaConfig", "llama", "hf", {**llama, "rope_scaling": LLAMA_3}, only="rope_scaling."),
        Kind("LlamaConfig", "llama", "hf", {**{k: v for k, v in llama.items() if k != "rope_theta"}, "rope_parameters": {**LLAMA_3, "rope_theta": 1e4}}, only="rope_parameters."),
        hf("MixtralConfig", "mixtral", **COMMON, num_local_experts=4, num_experts_per_tok=2, sliding_window=None),
        hf("Qwen2Config", "qwen2", **COMMON, use_sliding_window=False, max_window_layers=0, sliding_window=32),
        hf("Qwen2MoeConfig", "qwen2_moe", **COMMON, **EXPERTS, shared_expert_intermediate_size=12),
        hf("Qwen3Config", "qwen3", **COMMON, use_sliding_window=True, max_window_layers=0, sliding_window=32),
        hf("Qwen3MoeConfig", "qwen3_moe", **COMMON, **EXPERTS, use_sliding_window=True, sliding_window=32),
        hf("GPTNeoXConfig", "gpt_neox", **SIZES, layer_norm_eps=1e-5, rotary_pct=0.5, use_parallel_residual=True, max_position_embeddings=64,
           hidden_act="gelu", tie_word_embeddings=False),
        hf("NemotronConfig", "nemotron", **{**COMMON, "hidden_act": "relu2", "norm_eps": 1e-5}, partial_rotary_factor=0.5),
        hf("DbrxConfig", "dbrx", vocab_size=50, n_layers=4, d_model=24, n_heads=6, max_seq_len=64, attn_config={"kv_n_heads": 2, "rope_theta": 5e5},
           ffn_config={"ffn_hidden_size": 20, "moe_num_experts": 4, "moe_top_k": 2, "ffn_act_fn": {"name": "silu"}, "moe_normalize_expert_weights": 1}),
        hf("GPT2Config", "gpt2", vocab_size=50, n_layer=2, n_embd=24, n_head=4, n_positions=16, activation_function="gelu_new", layer_norm_epsilon=1e-5),
        hf("MinistralConfig", "ministral", **COMMON, sliding_window=32), hf("ExaoneConfig", "exaone", **COMMON, attention_bias=False), hf("InternLM3Config", "internlm3", **COMMON),
        hf("Jais2Config", "jais2", **{**COMMON, "hidden_act": "relu2", "layer_norm_eps": 1e-5}, attention_bias=True, mlp_bias=True),
        hf("GraniteConfig", "granite", **COMMON, attention_multiplier=0.125),
        hf("GPTBigCodeConfig", "gpt_bigcode", vocab_size=50, n_layer=2, n_embd=24, n_head=4, n_positions=16, activation_function="gelu_pytorch_tanh", layer_norm_epsilon=1e-5, multi_query=True),
        hf("SeedOssConfig", "seed_oss", **COMMON, attention_bias=True, attention_out_bias=False), hf("ArceeConfig", "arcee", **{**COMMON, "hidden_act": "relu2"}),
        hf("Phi3Config", "phi3", **COMMON, sliding_window=None), hf("HeliumConfig", "helium", **COMMON), hf("Ernie4_5Config", "ernie4_5", **COMMON, use_bias=False),
        hf("Starcoder2Config", "starcoder2", **{**COMMON, "hidden_act": "gelu_pytorch_tanh", "norm_epsilon": 1e-5}, use_bias=True, sliding_window=None),
        hf("StableLmConfig", "stablelm", **COMMON, layer_norm_eps=1e-5, partial_rotary_factor=0.25), hf("InternLM2Config", "internlm2", **COMMON, bias=False), hf("GemmaConfig", "gemma", **{**COMMON, "hidden_act": "gelu_pytorch_tanh"}),
        hf("Gemma2Config", "gemma2", **NORMED, sliding_window=5, query_pre_attn_scalar=8), hf("Olmo2Config", "olmo2", **COMMON), hf("Olmo3Config", "olmo3", **{**COMMON, "rope_theta": 5e5}, sliding_window=5),
        Kind("Gemma3TextConfig", "gemma3", "hf", {"model_type": "gemma3_text", **NORMED, "sliding_window": 5, "sliding_window_pattern": 4, "query_pre_attn_scalar": 8}),
        hf("OlmoeConfig", "olmoe", **COMMON, num_experts=4, num_experts_per_tok=2), hf("Glm4Config", "glm4", **COMMON, partial_rotary_factor=1.0),
        hf("Exaone4Config", "exaone4", **COMMON, sliding_window=5, sliding_window_pattern=4), hf("MiniMaxM2Config", "minimax_m2", **COMMON, num_local_experts=4, num_experts_per_tok=2),
        hf("GptOssConfig", "gpt_oss", **COMMON, attention_bias=True, num_local_experts=4, num_experts_per_tok=2, sliding_window=5, rope_scaling={"rope_type": "default"}),
        hf("CohereConfig", "cohere", **BY_ONE, logit_scale=1.0), hf("Cohere2Config", "cohere2", **BY_ONE, logit_scale=1.0, sliding_window=5, sliding_window_pattern=4),
        hf("Qwen3NextConfig", "qwen3_next", **COMMON, **EXPERTS, **LINEAR, shared_expert_intermediate_size=12, norm_topk_prob=True),
        Kind("Qwen3_5TextConfig", "qwen3_5", "hf", {**COMMON, **LINEAR, "model_type": "qwen3_5_text"}),
        Kind("Qwen3_5MoeTextConfig", "qwen3_5_moe", "hf", {**COMMON, **EXPERTS, **LINEAR, "model_type": "qwen3_5_moe_text", "shared_expert_intermediate_size": 12}),
        Kind("DeepseekV3Config", "deepseek", "hf", {**LATENT, "model_type": "deepseek_v3", "norm_topk_prob": True}),
        hf("DeepseekV3Config", "kimi_k2", **LATENT, norm_topk_prob=True), hf("Glm4MoeLiteConfig", "glm4_moe_lite", **LATENT, norm_topk_prob=True), hf("YoutuConfig", "youtu", **LATENT_ONLY),
        hf("Glm4MoeConfig", "glm4_moe", **COMMON, **ROUTED, first_k_dense_replace=1, partial_rotary_factor=0.5), hf("Dots1Config", "dots1", **COMMON, **ROUTED, first_k_dense_replace=1, sliding_window=None),
        hf("SolarOpenConfig", "solar_open", **COMMON, **ROUTED),
        Kind("DeepseekV2Config", "deepseek", "hf", {**LATENT, "model_type": "deepseek_v2", "topk_method": "group_limited_greedy", "norm_topk_prob": False}),
        Kind("megatron-args", "llama", "megatron", ARGS),
        Kind("megatron-args", "mixtral", "megatron", {**ARGS, "num_experts": 4, "moe_ffn_hidden_size": 16, "moe_router_topk": 2}),
        Kind("megatron-args", "gpt2", "megatron", {**ARGS, "swiglu": False, "add_bias_linear": True, "position_embedding_type": "learned_absolute", "normalization": "LayerNorm",
                                                   "group_query_attention": False}),
        Kind("megatron-args", "llama", "megatron", {**ARGS, "use_rope_scaling": True}, only="rope_scaling_factor"),
        Kind("megatron-args", "llama", "megatron", {**ARGS, "window_size": [7, 0]}, only="window_attn_skip_freq"),
        Kind("nemo1-gpt", "llama", "nemo", NEMO), Kind("nemo1-gpt", "llama", "nemo-legacy", {**NEMO, "mcore_gpt": False}),
        Kind("nemo1-gpt", "mixtral", "nemo", {**NEMO, "num_moe_experts": 4, "moe_router_topk": 2}),
        Kind("nemo1-gpt", "gpt2", "nemo", {**NEMO, "activation": "gelu", "bias": True, "num_query_groups": 6, "normalization": "layernorm"}, only="bias_activation"),
        *(Kind("nemo1-gpt", "llama", "nemo", {**NEMO, "scale_positional_embedding": True}, only=key) for key in ("scale_factor", "low_freq", "high_freq", "old_context")),
        nemo_2("llama", f"{NEMO_LLAMA}.LlamaModel"),
        nemo_2("mixtral", "nemo.collections.llm.gpt.model.mixtral.MixtralModel", num_moe_experts=4, moe_router_topk=2),
        *(Kind("nemo2-gpt", "llama", "nemo2", {"_target_": f"{NEMO_LLAMA}.LlamaModel", "config": {**NEMO_2, "_target_": f"{NEMO_LLAMA}.Llama31Config"}}, "config.", key)
          for key in ("scale_factor", "low_freq", "high_freq", "old_context")),
        Kind("NxDT megatron", "llama", "nxdt-megatron", {"model": NXDT}),
        Kind("NxDT megatron", "mixtral", "nxdt-megatron", {"model": {**NXDT, "moe": {"num_experts": 4, "top_k": 2}}}, only="model.moe"),
    ]  # fmt: skip


KINDS = kinds()
# Settings that do nothing by themselves: what they go with is flipped, and refused or carried, on its own.
WITHIN = {
    "rope_scaling": "what is no mapping is an error of transformers'", "rope_parameters": "the same",
    "max_position_embeddings": "only dynamic scaling reads it, which no target can say", "max_seq_len": "the same",
    "model.max_position_embeddings": "the same", "sliding_window": "use_sliding_window", "max_window_layers": "use_sliding_window",
    "ffn_config.ffn_act_fn": "what is no mapping is an error", "layernorm_epsilon": "norm_epsilon, its later name, is there as well",
    "openai_gelu": "Megatron-core's gelu alone", "bias_gelu_fusion": "gelu alone", "add_position_embedding": "position_embedding_type says it",
    "squared_relu": "an error of Megatron's beside swiglu", "disable_bias_linear": "add_bias_linear, its later name, is there as well",
    "relative_attention_num_buckets": "position_embedding_type", "relative_attention_max_distance": "position_embedding_type",
    "window_attn_skip_freq": "window_size", "rope_scaling_factor": "use_rope_scaling", "mup_attn_scale_power": "use_mup", "yarn_original_max_position_embeddings": "position_embedding_type",
    "yarn_beta_fast": "position_embedding_type", "yarn_beta_slow": "position_embedding_type", "yarn_correction_range_round_to_int": "position_embedding_type",
    "mhc_num_residual_streams": "enable_mhc_connections", "mhc_sinkhorn_iterations": "enable_mhc_connections",
    "bias_activation_fusion": "gelu alone", "scale_factor": "scale_positional_embedding", "low_freq_factor": "the same", "high_freq_factor": "the same",
    "old_context_len": "the same", "rotary_percent": "rotary_percentage is NeMo's name", "topk_method": "groups of experts",
    "megatron_legacy": "NeMo's own modules, not Megatron-core's", "mscale": "YaRN", "mscale_all_dim": "YaRN", "beta_fast": "YaRN", "beta_slow": "YaRN", "original_max_position_embeddings": "YaRN",
}  # fmt: skip
IN_SCALING = {"beta_fast", "beta_slow", "mscale", "mscale_all_dim", "attention_factor", "truncate", "short_factor", "long_factor", "partial_rotary_factor", "rope_theta"}
MIXED = ("moe_", "model.moe.")  # settings of experts, flipped where there are some
IGNORED_BY_LEGACY = {"layernorm_zero_centered_gamma", "qk_layernorm", "qkv_bias", "rotary_interleaved", "window_size", "rotary_percent"}


def flipped(config: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    out = deepcopy(config)
    at, (*parents, last) = out, key.split(".")
    for parent in parents:
        if not isinstance(at.get(parent), dict):
            at[parent] = {}
        at = at[parent]
    at[last] = value
    return out


def other_value(config: dict[str, Any], key: str, values: list[Any]) -> Any:
    at: Any = config
    for part in key.split("."):
        at = at.get(part) if isinstance(at, dict) else None
    return next(v for v in values if v != at or isinstance(v, bool) != isinstance(at, bool))


def computed(kind: Kind, config: dict[str, Any]) -> tuple[Any, ...]:
    """All that decides what the model computes, and the keys that get a note."""
    family = FAMILIES[kind.family]
    seldom = ("q_norm", "k_norm", "position", "once_both", "further_embed", "further_head", "further_freq", "join_both", "router_bias")
    stored = {t.name for t in family.model.tensors if not t.optional and not t.name.endswith("_bias") and t.name not in seldom and not t.name.startswith("shared_")}
    given = {} if kind.layout in ("hf", "megatron") else {"vocab": 50}
    sizes = bind_sizes(family, family.layout(kind.layout), config, given, stored.__contains__, "config", lacks=lambda name: name not in stored)
    values = {s.name: sizes.values.get(s.name) for s in family.model.settings if not s.hint}
    tensors = {name: (t.shape, t.picked) for name, t in sizes.tensors.items()}
    return values, dict(sizes.params), tensors, dict(sizes.tied), sizes.unknown


def cases() -> list[tuple[Kind, str, Any]]:
    out = []
    for kind in KINDS:
        experts = any("experts" in key for key in (*kind.config, *kind.config.get("config", ()), *kind.config.get("model", {}).get("moe", ())))
        for key, values in SETTINGS[kind.settings].items():
            learned = kind.config.get("position_embedding_type") == "learned_absolute"
            if not key.startswith(kind.only) or (key.startswith(MIXED) and not experts) or (learned and key.startswith(("rot", "use_rope"))):
                continue
            full = kind.above + key
            out.append((kind, full, other_value(kind.config, full, values)))
    return out


CASES = cases()


def test_the_neutral_configs_are_known_to_the_last_key() -> None:
    for kind in KINDS:
        unknown = computed(kind, kind.config)[-1]
        assert set(unknown) <= {"rms_norm_eps"}, (kind.settings, unknown)  # of those that read norm_eps or layer_norm_eps


@pytest.mark.parametrize(("kind", "key", "value"), CASES, ids=lambda x: f"{x.family}-{x.layout}" if isinstance(x, Kind) else str(x))
def test_no_setting_passes_in_silence(kind: Kind, key: str, value: Any) -> None:
    try:
        result = computed(kind, flipped(kind.config, key, value))
    except MappingError:
        return  # refused
    if result != computed(kind, kind.config):
        return  # carried, or noted as unknown
    name = key.removeprefix(kind.above)
    scaling = name.partition(".")[2] in IN_SCALING | set(LLAMA_3) | {"type"} and name.startswith("rope_")
    legacy = kind.layout == "nemo-legacy" and name in IGNORED_BY_LEGACY
    assert name in WITHIN or scaling or legacy or name.endswith("load_balancing_type"), f"{key} = {value} passes in silence"


TARGETS = ("megatron", "megatron-legacy", "nemo", "nemo-legacy", "nemo2", "nxdt-megatron")


def codes_of(check: Callable[[], object]) -> set[str]:
    try:
        check()
    except MappingError as error:
        return {d.code for d in error.diagnostics}
    return set()


@pytest.mark.parametrize("to", TARGETS)
def test_what_a_target_is_given_is_what_its_config_says(to: str) -> None:
    """Each carried setting of a Llama config either is said by the target's config, read on its own, or is refused."""
    kind = KINDS[0]
    family = FAMILIES["llama"]
    said, refused = 0, 0
    for key, values in SETTINGS["LlamaConfig"].items():
        config = flipped(kind.config, key, other_value(kind.config, key, values))
        try:
            sizes = bind_sizes(family, family.layout("hf"), config, {}, lambda name: not name.endswith("bias") and name not in ("q_norm", "k_norm"), "config")
            target = resolve(family, to, sizes, {})
        except MappingError:
            continue
        codes = codes_of(lambda target=target: check_said(target, family, ()))
        assert codes <= {"unsayable"}
        said, refused = said + (not codes), refused + bool(codes)
    assert said > 3
    assert said + refused > 5
