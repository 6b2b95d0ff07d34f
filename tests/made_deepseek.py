"""A made DeepSeek-V3 checkpoint of HuggingFace. Sizes are pairwise distinct: two layers are dense, four have experts, and
one more predicts a further token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

Weights = dict[str, torch.Tensor]
LAYERS, DENSE, VOCAB, HIDDEN, FFN, HEADS, EXPERTS, EXPERT_FFN, SHARED_FFN = 6, 2, 37, 20, 33, 3, 4, 15, 30
NOPE, ROPE, VALUE, Q_RANK, KV_RANK = 5, 4, 7, 11, 6
CONFIG: dict[str, Any] = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "vocab_size": VOCAB, "num_hidden_layers": LAYERS,
    "first_k_dense_replace": DENSE, "hidden_size": HIDDEN, "intermediate_size": FFN, "moe_intermediate_size": EXPERT_FFN,
    "n_routed_experts": EXPERTS, "n_shared_experts": 2, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
    "q_lora_rank": Q_RANK, "kv_lora_rank": KV_RANK, "qk_nope_head_dim": NOPE, "qk_rope_head_dim": ROPE, "v_head_dim": VALUE,
    "topk_method": "noaux_tc", "num_nextn_predict_layers": 1,
}  # fmt: skip
BIAS = "mlp.gate.e_score_correction_bias"


def gated(prefix: str, ffn: int) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}gate_proj.weight": (ffn, HIDDEN), f"{prefix}up_proj.weight": (ffn, HIDDEN), f"{prefix}down_proj.weight": (HIDDEN, ffn)}


def attention(low_rank: bool) -> dict[str, tuple[int, ...]]:
    query = HEADS * (NOPE + ROPE)
    down = {"q_a_proj.weight": (Q_RANK, HIDDEN), "q_a_layernorm.weight": (Q_RANK,), "q_b_proj.weight": (query, Q_RANK)}
    shapes: dict[str, tuple[int, ...]] = down if low_rank else {"q_proj.weight": (query, HIDDEN)}
    shapes |= {
        "kv_a_proj_with_mqa.weight": (KV_RANK + ROPE, HIDDEN), "kv_a_layernorm.weight": (KV_RANK,),
        "kv_b_proj.weight": (HEADS * (NOPE + VALUE), KV_RANK), "o_proj.weight": (HIDDEN, HEADS * VALUE),
    }  # fmt: skip
    norms = {"input_layernorm.weight": (HIDDEN,), "post_attention_layernorm.weight": (HIDDEN,)}
    return norms | {f"self_attn.{name}": shape for name, shape in shapes.items()}


def layer(i: int, low_rank: bool) -> dict[str, tuple[int, ...]]:
    shapes = attention(low_rank)
    if i < DENSE:
        return shapes | gated("mlp.", FFN)
    shapes |= {"mlp.gate.weight": (EXPERTS, HIDDEN), BIAS: (EXPERTS,)} | gated("mlp.shared_experts.", SHARED_FFN)
    for e in range(EXPERTS):
        shapes |= gated(f"mlp.experts.{e}.", EXPERT_FFN)
    if i == LAYERS:
        vectors = dict.fromkeys(("enorm.weight", "hnorm.weight", "shared_head.norm.weight"), (HIDDEN,))
        shapes |= vectors | {"eh_proj.weight": (HIDDEN, 2 * HIDDEN)}
    return shapes


def huggingface(folder: Path, layers: int = LAYERS + 1, low_rank: bool = True, dtype: torch.dtype = torch.bfloat16, **config: Any) -> Weights:
    """A checkpoint in `folder`: its tensors."""
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, HIDDEN), "model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCAB, HIDDEN)}
    for i in range(layers):
        shapes |= {f"model.layers.{i}.{name}": shape for name, shape in layer(i, low_rank).items()}
    generator = torch.Generator().manual_seed(7)
    weights = {name: torch.randn(shape, generator=generator).to(torch.float32 if name.endswith(BIAS) else dtype) for name, shape in shapes.items()}
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG | ({} if low_rank else {"q_lora_rank": None}) | config))
    return weights
