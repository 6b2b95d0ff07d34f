"""Sizes, names and shapes of small decoders in the names of HuggingFace, and what Megatron-core makes of a layer of one, said by
a plain torch account. Sizes are pairwise distinct.
"""

from __future__ import annotations

import torch

Weights = dict[str, torch.Tensor]
Shapes = dict[str, tuple[int, ...]]
LAYERS, HIDDEN, FFN, GROUPS, SHARE, DIM, VOCAB = 4, 40, 36, 2, 3, 8, 30
HEADS = GROUPS * SHARE
AT = "model.layers."
KEYS = {
    "num_hidden_layers": LAYERS, "hidden_size": HIDDEN, "intermediate_size": FFN, "num_attention_heads": HEADS, "num_key_value_heads": GROUPS,
    "vocab_size": VOCAB, "tie_word_embeddings": False, "max_position_embeddings": 97, "initializer_range": 0.03,
}  # fmt: skip
RMS = {"rms_norm_eps": 3e-6}
HEAD = {"head_dim": DIM}


def linear(name: str, out: int, into: int, bias: bool = False) -> Shapes:
    return {f"{name}.weight": (out, into)} | ({f"{name}.bias": (out,)} if bias else {})


def norm(name: str, bias: bool = False, hidden: int = HIDDEN) -> Shapes:
    return {f"{name}.weight": (hidden,)} | ({f"{name}.bias": (hidden,)} if bias else {})


def attention(qkv: bool = False, out: bool = False, hidden: int = HIDDEN) -> Shapes:
    at = "self_attn."
    return (
        linear(f"{at}q_proj", HEADS * DIM, hidden, qkv) | linear(f"{at}k_proj", GROUPS * DIM, hidden, qkv)
        | linear(f"{at}v_proj", GROUPS * DIM, hidden, qkv) | linear(f"{at}o_proj", hidden, HEADS * DIM, out)
    )  # fmt: skip


def gated(bias: bool = False, hidden: int = HIDDEN) -> Shapes:
    return linear("mlp.gate_proj", FFN, hidden, bias) | linear("mlp.up_proj", FFN, hidden, bias) | linear("mlp.down_proj", hidden, FFN, bias)


def norms(bias: bool = False, hidden: int = HIDDEN) -> Shapes:
    return norm("input_layernorm", bias, hidden) | norm("post_attention_layernorm", bias, hidden)


def core_layer(h: Weights, tp: int = 1, rank: int = 0) -> Weights:
    """A layer of Megatron-core with Transformer Engine: rows by groups (q of a group, its k, its v), gate before up."""

    def cut(x: torch.Tensor, dim: int = 0) -> torch.Tensor:
        return x.chunk(tp, dim)[rank]

    out: Weights = {}
    for kind in ("weight", "bias"):
        if f"self_attn.q_proj.{kind}" in h:
            parts = [h[f"self_attn.{p}_proj.{kind}"].unflatten(0, (GROUPS, -1)) for p in "qkv"]
            out[f"self_attention.linear_qkv.{kind}"] = cut(torch.cat(parts, 1).flatten(0, 1))
        if f"mlp.up_proj.{kind}" in h:
            fc1 = [h[f"mlp.{p}_proj.{kind}"] for p in ("gate", "up") if f"mlp.{p}_proj.{kind}" in h]
            out[f"mlp.linear_fc1.{kind}"] = torch.cat([cut(x) for x in fc1])
        for new, old in (("self_attention.linear_qkv.layer_norm_", "input_layernorm."), ("mlp.linear_fc1.layer_norm_", "post_attention_layernorm.")):
            if f"{old}{kind}" in h:
                out[f"{new}{kind}"] = h[f"{old}{kind}"]
    for new, old in (("self_attention.linear_proj", "self_attn.o_proj"), ("mlp.linear_fc2", "mlp.down_proj")):
        out[f"{new}.weight"] = cut(h[f"{old}.weight"], 1)
        if f"{old}.bias" in h:
            out[f"{new}.bias"] = h[f"{old}.bias"]
    return out
