"""Tiny models of transformers' own classes, a row each: what its config has, which layouts hold it, and what Megatron-core's config
has for it. Sizes are pairwise distinct, so that a wrong order or transpose shows; where a module is square, its family's is.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from torch.nn.functional import gelu

LAYERS, HIDDEN, FFN, HEADS, GROUPS, DIM, VOCAB, PLACES = 4, 48, 80, 6, 2, 12, 176, 64
EXPERTS, CHOSEN, EXPERT_FFN, SHARED_FFN = 5, 3, 28, 36
SIZES = {
    "vocab_size": VOCAB, "num_hidden_layers": LAYERS, "hidden_size": HIDDEN, "intermediate_size": FFN, "num_attention_heads": HEADS,
    "num_key_value_heads": GROUPS, "max_position_embeddings": PLACES, "tie_word_embeddings": False, "pad_token_id": None,
}  # fmt: skip
HEAD = {"head_dim": DIM}
SQUARE = {"head_dim": HIDDEN // HEADS}
OF_EXPERTS = {"num_experts": EXPERTS, "num_experts_per_tok": CHOSEN, "moe_intermediate_size": EXPERT_FFN}
CHOSEN_IN_GROUPS = {
    "n_routed_experts": 6, "n_shared_experts": 2, "num_experts_per_tok": 4, "moe_intermediate_size": EXPERT_FFN, "n_group": 3, "topk_group": 2,
    "routed_scaling_factor": 2.5, "norm_topk_prob": True,
}  # fmt: skip
LATENT_ATTENTION = {
    "num_key_value_heads": HEADS, "q_lora_rank": 20, "kv_lora_rank": 14, "qk_nope_head_dim": 10, "qk_rope_head_dim": 6, "v_head_dim": 16, "head_dim": 6,
}  # fmt: skip
LATENT = LATENT_ATTENTION | CHOSEN_IN_GROUPS | {"first_k_dense_replace": 1}
LINEAR = {
    "linear_num_key_heads": 10, "linear_num_value_heads": 30, "linear_key_head_dim": 7, "linear_value_head_dim": 11, "linear_conv_kernel_dim": 5,
    "partial_rotary_factor": 0.5, "rope_parameters": {"rope_type": "default", "rope_theta": 5e6},
}  # fmt: skip
GPT_2 = {"n_layer": LAYERS, "n_embd": HIDDEN, "n_head": HEADS, "n_positions": PLACES, "n_inner": FFN, "vocab_size": VOCAB}
DBRX = {
    "n_layers": LAYERS, "d_model": HIDDEN, "n_heads": HEADS, "max_seq_len": PLACES, "vocab_size": VOCAB,
    "attn_config": {"kv_n_heads": GROUPS, "clip_qkv": 8.0, "rope_theta": 5e5}, "ffn_config": {"ffn_hidden_size": EXPERT_FFN, "moe_num_experts": EXPERTS, "moe_top_k": CHOSEN},
}  # fmt: skip

NUMBERED = ("megatron", "megatron-legacy", "nemo2")  # layers of several kinds have numbers there
RELEASED = ("megatron", "megatron-legacy")
LINEAR_CORE = "Megatron-core's linear attention needs Transformer Engine; test_linear_attention.py runs its module alone"
MCORE = (*NUMBERED, "nemo", "nemo-dist")
OLDER = (*MCORE, "megatron-lm", "nemo-legacy")  # those before Megatron-core too
NXD = ("nxdt", "nxdt-megatron")
ALL = (*OLDER, *NXD)


def but(layout: str, layouts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(x for x in layouts if x != layout)


@dataclass(frozen=True)
class Model:
    """A model: ckptc's family, transformers' class, the keys of its config, and the layouts that hold it; others refuse it."""

    name: str
    family: str
    kind: str
    keys: dict[str, Any] = field(default_factory=dict)
    held: tuple[str, ...] = ALL
    core: dict[str, Any] | str = field(default_factory=dict)  # what Megatron-core's config has otherwise, or why none is run
    accept: tuple[str, ...] = ()  # what Megatron-LM's arguments have no word for
    accept_nemo2: tuple[str, ...] = ()  # what a class of NeMo 2 has otherwise
    tp: int = 2
    called: str = ""  # the model_type of the published config, where transformers has the class under another
    published: bool = False  # its config.json has the keys of the row and no others, as published ones have, and not what transformers writes

    def config(self) -> dict[str, Any]:
        return self.keys if self.kind in ("GPT2", "GPTBigCode", "Dbrx") else SIZES | self.keys


def relu2(x: Tensor) -> Tensor:
    return x.relu().square()


def quick_gelu(x: Tensor) -> Tensor:
    return x * (1.702 * x).sigmoid()


def gelu_tanh(x: Tensor) -> Tensor:
    return gelu(x, approximate="tanh")


UNGATED = {"gated_linear_unit": False}
BIASES = {"add_bias_linear": True}
QKV_BIAS = {"add_qkv_bias": True}
QK_NORM = {"qk_layernorm": True}
LAYER_NORM = {"normalization": "LayerNorm"}
MOE = {"num_moe_experts": EXPERTS, "moe_ffn_hidden_size": EXPERT_FFN, "moe_router_topk": CHOSEN}
CORE_GROUPS = {
    "num_moe_experts": 6, "moe_ffn_hidden_size": EXPERT_FFN, "moe_shared_expert_intermediate_size": 2 * EXPERT_FFN, "moe_router_topk": 4,
    "moe_router_num_groups": 3, "moe_router_group_topk": 2, "moe_router_topk_scaling_factor": 2.5,
}  # fmt: skip
ONE_DENSE = {"moe_layer_freq": [0, 1, 1, 1]}
CORE_ATTENTION = {
    "q_lora_rank": 20, "kv_lora_rank": 14, "qk_head_dim": 10, "qk_pos_emb_head_dim": 6, "v_head_dim": 16, "rope_type": "rope", "qk_layernorm": True,
    "num_query_groups": HEADS,
}  # fmt: skip
CORE_LATENT = CORE_ATTENTION | CORE_GROUPS | ONE_DENSE
SIGMOID = {"moe_router_score_function": "sigmoid", "moe_router_enable_expert_bias": True}

NOT_MADE = {
    "internlm2": "its classes stand beside its published weights, and not in transformers",
    "neva": "it is a decoder and a vision tower",
    "vit": "it is no decoder",
}
SLIDING, FULL = "sliding_attention", "full_attention"
EVERY_OTHER = {"sliding_window": 5, "layer_types": [SLIDING, FULL] * 2}
PARTIAL = {"rope_type": "default", "rope_theta": 2e4, "partial_rotary_factor": 0.5}
SCORES_AND_CAPS = {"query_pre_attn_scalar": 24, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0}
LINEAR = {"rope_type": "linear", "factor": 8.0}
YARN = {"rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "original_max_position_embeddings": 16}
SINKS = HEAD | {"num_local_experts": EXPERTS, "num_experts_per_tok": CHOSEN, "intermediate_size": EXPERT_FFN, "sliding_window": 5, "swiglu_limit": 0.7}
CORE_SINKS = BIASES | MOE | {
    "ffn_hidden_size": EXPERT_FFN, "activation_func": quick_gelu, "glu_linear_offset": 1.0, "activation_func_clamp_value": 0.7, "softmax_type": "learnable",
    "window_size": (4, 0), "window_attn_skip_freq": 2,
}  # fmt: skip
CAPS_UNSAID = ("activation", "gated", "score_root", "score_cap", "logit_cap")
ROPES_UNSAID = ("activation", "gated", "window_rope_base", "window_rope_kind")
YARN_UNSAID = ("rope_kind", "rope_places", "rope_whole")
BESIDE = "Megatron's layers add attention and feed-forward network one after the other"
WIDE = "Megatron has no norms over all rows of queries and keys"
AFTER = "Megatron-core has no norms after attention and feed-forward network"

MODELS = [
    Model("llama", "llama", "Llama"),
    Model("llama-biases", "llama", "Llama", HEAD | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}, core=BIASES),
    Model("llama-mha", "llama", "Llama", {"num_key_value_heads": HEADS}),
    Model("mistral", "mistral", "Mistral", HEAD | {"sliding_window": None}),
    Model("mistral-window", "mistral", "Mistral", {"sliding_window": 8}, but("nemo-legacy", ALL), {"window_size": (7, 0)}),
    Model("qwen2", "qwen2", "Qwen2", core=QKV_BIAS),
    Model("qwen2-tied", "qwen2", "Qwen2", {"tie_word_embeddings": True}, core=QKV_BIAS),
    Model("qwen3", "qwen3", "Qwen3", HEAD, MCORE, QK_NORM),
    Model("seed_oss", "seed_oss", "SeedOss", HEAD | {"attention_bias": True, "attention_out_bias": False}, core=QKV_BIAS),
    Model("seed_oss-biases", "seed_oss", "SeedOss", HEAD | {"attention_bias": True, "attention_out_bias": True, "mlp_bias": True}, but("nemo-legacy", ALL), BIASES),
    Model("arcee", "arcee", "Arcee", HEAD | {"hidden_act": "relu2"}, OLDER, UNGATED | {"activation_func": relu2}),
    Model("phi3", "phi3", "Phi3", {"sliding_window": None}),
    Model("phi3-partial", "phi3", "Phi3", {"sliding_window": None, "partial_rotary_factor": 0.5, "tie_word_embeddings": True}, OLDER),
    Model("helium", "helium", "Helium", SQUARE | {"attention_bias": False}),
    Model("ernie4_5", "ernie4_5", "Ernie4_5", HEAD | {"use_bias": True}, core=BIASES),
    Model("gemma", "gemma", "Gemma", HEAD | {"tie_word_embeddings": True, "hidden_act": "gelu_pytorch_tanh"}, MCORE,
          "Megatron-core's norm on the CPU adds no 1 to its weight, and its embedding has no factor", ("activation", "gated")),
    Model("stablelm", "stablelm", "StableLm", {"use_qkv_bias": True, "partial_rotary_factor": 0.25}, but("nemo-legacy", OLDER), LAYER_NORM | QKV_BIAS),
    Model("starcoder2", "starcoder2", "Starcoder2", {"use_bias": True, "sliding_window": None, "hidden_act": "gelu_pytorch_tanh"}, OLDER,
          LAYER_NORM | BIASES | UNGATED | {"activation_func": gelu_tanh}),
    Model("nemotron", "nemotron", "Nemotron", HEAD | {"hidden_act": "relu2"}, OLDER, "Megatron-core's norm on the CPU adds no 1 to its weight"),
    Model("gpt2", "gpt2", "GPT2", GPT_2, OLDER, LAYER_NORM | BIASES | UNGATED | {"activation_func": gelu_tanh, "num_query_groups": HEADS}),
    Model("gpt2-untied", "gpt2", "GPT2", GPT_2 | {"tie_word_embeddings": False}, OLDER, LAYER_NORM | BIASES | UNGATED | {"activation_func": gelu_tanh, "num_query_groups": HEADS}),
    Model("gpt_neox", "gpt_neox", "GPTNeoX", {"use_parallel_residual": False, "rotary_pct": 0.25}, OLDER,
          LAYER_NORM | BIASES | UNGATED | {"activation_func": gelu, "num_query_groups": HEADS}),
    Model("gpt_neox-parallel", "gpt_neox", "GPTNeoX", {"use_parallel_residual": True}, (), "Megatron's layers add attention and feed-forward network one after the other"),
    Model("ministral", "ministral", "Ministral", HEAD | {"sliding_window": PLACES}, but("nemo-legacy", ALL)),
    Model("ministral-mixed", "ministral", "Ministral", HEAD | {"sliding_window": 8, "layer_types": ["full_attention", *["sliding_attention"] * 3]}, (*NUMBERED, "megatron-lm"), {"window_size": (7, 0), "window_attn_skip_freq": [0, 1, 1, 1]}),
    Model("exaone", "exaone", "Exaone", HEAD),
    Model("exaone-biases", "exaone", "Exaone", HEAD | {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True}, core=BIASES),
    Model("internlm3", "internlm3", "InternLM3", HEAD),
    Model("internlm3-biases", "internlm3", "InternLM3", HEAD | {"attention_bias": True, "mlp_bias": True}, core=BIASES),
    Model("jais2", "jais2", "Jais2", HEAD, OLDER, LAYER_NORM | BIASES | UNGATED | {"activation_func": relu2}),
    Model("granite", "granite", "Granite", {"embedding_multiplier": 12.0, "attention_multiplier": 0.0625, "residual_multiplier": 0.5, "logits_scaling": 8.0},
          ("megatron", "megatron-legacy", "megatron-lm"), "Megatron has no such factors", ("embed_scale", "attention_scale", "residual_scale", "logit_divisor")),
    Model("gpt_bigcode", "gpt_bigcode", "GPTBigCode", GPT_2, OLDER, LAYER_NORM | BIASES | UNGATED | {"activation_func": gelu_tanh, "num_query_groups": 1}, tp=1),
    Model("gpt_bigcode-mha", "gpt_bigcode", "GPTBigCode", GPT_2 | {"multi_query": False, "tie_word_embeddings": False}, OLDER,
          LAYER_NORM | BIASES | UNGATED | {"activation_func": gelu_tanh, "num_query_groups": HEADS}),
    Model("mixtral", "mixtral", "Mixtral", {"num_local_experts": EXPERTS, "num_experts_per_tok": CHOSEN, "intermediate_size": EXPERT_FFN, "sliding_window": None}, MCORE + NXD, MOE),
    Model("qwen3_moe", "qwen3_moe", "Qwen3Moe", HEAD | OF_EXPERTS | {"norm_topk_prob": True}, MCORE, MOE | QK_NORM),
    Model("qwen3_moe-mixed", "qwen3_moe", "Qwen3Moe", HEAD | OF_EXPERTS | {"decoder_sparse_step": 2}, NUMBERED, MOE | QK_NORM | {"moe_router_pre_softmax": True, "moe_layer_freq": [0, 1, 0, 1]}),
    Model("qwen2_moe", "qwen2_moe", "Qwen2Moe", OF_EXPERTS | {"shared_expert_intermediate_size": SHARED_FFN}, MCORE,
          MOE | QKV_BIAS | {"moe_shared_expert_intermediate_size": SHARED_FFN, "moe_shared_expert_gate": True, "moe_router_pre_softmax": True}),
    Model("deepseek_v3", "deepseek", "DeepseekV3", LATENT, NUMBERED, CORE_LATENT | SIGMOID),
    Model("deepseek_v2", "deepseek", "DeepseekV2", LATENT | {"num_experts_per_tok": CHOSEN, "q_lora_rank": None, "topk_method": "group_limited_greedy", "norm_topk_prob": False}, NUMBERED,
          CORE_LATENT | {"moe_router_topk": CHOSEN, "q_lora_rank": None, "moe_router_pre_softmax": True}),
    Model("kimi_k2", "kimi_k2", "DeepseekV3", LATENT, NUMBERED, CORE_LATENT | SIGMOID, called="kimi_k2"),
    Model("glm4_moe_lite", "glm4_moe_lite", "Glm4MoeLite", LATENT, NUMBERED, CORE_LATENT | SIGMOID),
    Model("youtu", "youtu", "Youtu", LATENT_ATTENTION | {"tie_word_embeddings": True}, NUMBERED, CORE_ATTENTION),
    Model("glm4_moe", "glm4_moe", "Glm4Moe", HEAD | CHOSEN_IN_GROUPS | {"first_k_dense_replace": 1}, NUMBERED, CORE_GROUPS | SIGMOID | ONE_DENSE),
    Model("glm4_moe-norms", "glm4_moe", "Glm4Moe", HEAD | CHOSEN_IN_GROUPS | {"first_k_dense_replace": 0, "use_qk_norm": True, "attention_bias": True}, NUMBERED,
          CORE_GROUPS | SIGMOID | QK_NORM | QKV_BIAS),
    Model("dots1", "dots1", "Dots1", HEAD | CHOSEN_IN_GROUPS | {"first_k_dense_replace": 1, "sliding_window": None}, NUMBERED, CORE_GROUPS | SIGMOID | QK_NORM | ONE_DENSE),
    Model("solar_open", "solar_open", "SolarOpen", HEAD | CHOSEN_IN_GROUPS, NUMBERED, CORE_GROUPS | SIGMOID),
    Model("gemma2", "gemma2", "Gemma2", HEAD | SCORES_AND_CAPS | EVERY_OTHER | {"tie_word_embeddings": True}, NUMBERED, AFTER, CAPS_UNSAID, ("full_list",)),
    Model("gemma2-plain", "gemma2", "Gemma2", HEAD | {"query_pre_attn_scalar": DIM, "attn_logit_softcapping": None, "final_logit_softcapping": None, "layer_types": [FULL] * 4,
          "hidden_activation": "gelu"}, NUMBERED, AFTER, ("activation", "gated")),
    Model("gemma2-published", "gemma2", "Gemma2", HEAD | {"tie_word_embeddings": True, "query_pre_attn_scalar": 24, "sliding_window": 5, "rope_theta": 10000.0, "hidden_act": "gelu_pytorch_tanh",
          "hidden_activation": "gelu_pytorch_tanh", "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "cache_implementation": "hybrid"}, NUMBERED, AFTER, CAPS_UNSAID, ("full_list",), published=True),
    Model("gemma3", "gemma3", "Gemma3Text", HEAD | {"num_hidden_layers": 6, "tie_word_embeddings": True, "query_pre_attn_scalar": DIM, "sliding_window": 5,
          "rope_parameters": {FULL: LINEAR | {"rope_theta": 1e6}, SLIDING: {"rope_type": "default", "rope_theta": 1e4}}}, NUMBERED, AFTER, ROPES_UNSAID),
    Model("gemma3-odd", "gemma3", "Gemma3Text", HEAD | {"query_pre_attn_scalar": 24, "sliding_window": 5, "layer_types": [FULL, SLIDING, SLIDING, FULL], "final_logit_softcapping": 3.0, "attention_bias": True}, (), AFTER),
    Model("gemma3-published", "gemma3", "Gemma3Text", HEAD | {"tie_word_embeddings": True, "query_pre_attn_scalar": DIM, "sliding_window": 5, "sliding_window_pattern": 2, "rope_theta": 1e6, "rope_local_base_freq": 2e4,
          "rope_scaling": LINEAR}, NUMBERED, AFTER, ROPES_UNSAID, published=True),
    Model("olmo2", "olmo2", "Olmo2", {"attention_bias": True}, (), WIDE),
    Model("olmo2-tied", "olmo2", "Olmo2", {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 2e4}}, (), WIDE),
    Model("olmo3", "olmo3", "Olmo3", {"sliding_window": 5, "rope_parameters": {FULL: YARN | {"rope_theta": 5e5, "attention_factor": 1.3}, SLIDING: {"rope_type": "default", "rope_theta": 5e5}}}, (), WIDE),
    Model("olmo3-bases", "olmo3", "Olmo3", EVERY_OTHER | {"rope_parameters": {FULL: {"rope_type": "default", "rope_theta": 3e4}, SLIDING: {"rope_type": "default", "rope_theta": 5e3}}}, (), WIDE),
    Model("olmoe", "olmoe", "Olmoe", OF_EXPERTS, (), WIDE),
    Model("olmoe-clip", "olmoe", "Olmoe", OF_EXPERTS | {"clip_qkv": 0.7, "norm_topk_prob": True, "attention_bias": True}, (), WIDE),
    Model("glm4", "glm4", "Glm4", HEAD | {"attention_bias": True, "rope_parameters": PARTIAL}, (), AFTER),
    Model("glm4-published", "glm4", "Glm4", HEAD | {"attention_bias": False, "partial_rotary_factor": 0.5, "rope_theta": 2e4}, (), AFTER, published=True),
    Model("exaone4", "exaone4", "Exaone4", {"sliding_window": 5}, (), AFTER),
    Model("exaone4-full", "exaone4", "Exaone4", {"sliding_window": None, "layer_types": [FULL] * 4, "tie_word_embeddings": True}, (), AFTER),
    Model("exaone4-odd", "exaone4", "Exaone4", EVERY_OTHER | {"sliding_window_pattern": "LLLG"}, (), AFTER),
    Model("minimax_m2", "minimax_m2", "MiniMaxM2", HEAD | {"num_local_experts": EXPERTS, "num_experts_per_tok": CHOSEN, "intermediate_size": EXPERT_FFN, "rope_parameters": PARTIAL}, (), WIDE),
    Model("minimax_m2-published", "minimax_m2", "MiniMaxM2", HEAD | {"num_local_experts": EXPERTS, "num_experts_per_tok": CHOSEN, "intermediate_size": EXPERT_FFN, "rotary_dim": 4, "rope_theta": 5000000,
          "scoring_func": "sigmoid", "use_qk_norm": True, "qk_norm_type": "per_layer", "attn_type_list": [1] * 4}, (), WIDE, published=True),
    Model("cohere", "cohere", "Cohere", {"attention_bias": True, "logit_scale": 0.25}, (), BESIDE),
    Model("cohere-norms", "cohere", "Cohere", {"use_qk_norm": True, "tie_word_embeddings": True}, (), BESIDE),
    Model("cohere2", "cohere2", "Cohere2", EVERY_OTHER, (), BESIDE),
    Model("cohere2-published", "cohere2", "Cohere2", {"sliding_window": 5, "sliding_window_pattern": 3, "rope_theta": 50000, "position_embedding_type": "rope_gptj", "rotary_pct": 1.0,
          "tie_word_embeddings": True}, (), BESIDE, published=True),
    Model("gpt_oss", "gpt_oss", "GptOss", SINKS | {"rope_parameters": {"rope_type": "default", "rope_theta": 2e4}}, NUMBERED, CORE_SINKS),
    Model("gpt_oss-yarn", "gpt_oss", "GptOss", SINKS | {"rope_parameters": YARN | {"rope_theta": 1.5e5, "truncate": False}}, NUMBERED, CORE_SINKS, YARN_UNSAID),
    Model("gpt_oss-published", "gpt_oss", "GptOss", SINKS | EVERY_OTHER | {"rope_theta": 150000, "initial_context_length": 16, "experts_per_token": CHOSEN,
          "rope_scaling": YARN | {"truncate": False}}, NUMBERED, "the row before is this model", YARN_UNSAID, published=True),
    Model("qwen3_next", "qwen3_next", "Qwen3Next", HEAD | LINEAR | OF_EXPERTS | {"shared_expert_intermediate_size": SHARED_FFN}, RELEASED, LINEAR_CORE),
    Model("qwen3_next-mixed", "qwen3_next", "Qwen3Next", HEAD | LINEAR | OF_EXPERTS | {
        "shared_expert_intermediate_size": SHARED_FFN, "decoder_sparse_step": 2, "norm_topk_prob": False, "tie_word_embeddings": True,
        "layer_types": ["full_attention", "linear_attention", "linear_attention", "full_attention"]}, RELEASED, LINEAR_CORE),
    Model("qwen3_5", "qwen3_5", "Qwen3_5Text", HEAD | LINEAR, RELEASED, LINEAR_CORE),
    Model("qwen3_5-biases", "qwen3_5", "Qwen3_5Text", HEAD | LINEAR | {"attention_bias": True, "tie_word_embeddings": True}, RELEASED, LINEAR_CORE, ("mlp_bias", "biased_experts", "gate_bias", "up_bias", "down_bias")),
    Model("qwen3_5_moe", "qwen3_5_moe", "Qwen3_5MoeText", HEAD | LINEAR | OF_EXPERTS | {"shared_expert_intermediate_size": SHARED_FFN}, RELEASED, LINEAR_CORE),
    Model("dbrx", "dbrx", "Dbrx", DBRX, ("nxdt",), "Megatron's layer norms have a bias, and DBRX's have none"),
]  # fmt: skip
