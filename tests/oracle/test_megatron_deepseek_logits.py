"""Megatron-core's own model with latent attention, where it is installed, loaded from what is converted, computes what a
plain account of DeepSeek-V3 computes from HuggingFace's tensors: rotary positions turn neighbouring rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import silu

import ckptc
from tests import real_megatron
from tests.made_deepseek import (
    BIAS,
    DENSE,
    EXPERT_FFN,
    EXPERTS,
    FFN,
    HEADS,
    HIDDEN,
    KV_RANK,
    LAYERS,
    NOPE,
    Q_RANK,
    ROPE,
    SHARED_FFN,
    VALUE,
    VOCAB,
    Weights,
    huggingface,
)

PLACES, BASE, SCALING, CHOSEN, EPS = 9, 100.0, 2.5, 2, 1e-6
pytestmark = [pytest.mark.megatron, pytest.mark.filterwarnings("ignore")]


def network(predicting: bool) -> Any:
    """The made model of Megatron-core's local layers, in float32 on the CPU, perhaps with a layer that predicts a further token."""
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec, get_gpt_mtp_block_spec
    from megatron.core.transformer.transformer_config import MLATransformerConfig

    config = MLATransformerConfig(
        num_layers=LAYERS, hidden_size=HIDDEN, num_attention_heads=HEADS, ffn_hidden_size=FFN, gated_linear_unit=True,
        activation_func=silu, normalization="RMSNorm", layernorm_epsilon=EPS, add_bias_linear=False, hidden_dropout=0.0,
        attention_dropout=0.0, use_cpu_initialization=True, params_dtype=torch.float32, bias_activation_fusion=False,
        masked_softmax_fusion=False, persist_layer_norm=False, gradient_accumulation_fusion=False, apply_rope_fusion=False,
        bias_dropout_fusion=False, qk_layernorm=True, q_lora_rank=Q_RANK, kv_lora_rank=KV_RANK, qk_head_dim=NOPE,
        qk_pos_emb_head_dim=ROPE, v_head_dim=VALUE, rope_type="rope", rotary_base=BASE, num_moe_experts=EXPERTS,
        moe_layer_freq=[0] * DENSE + [1] * (LAYERS - DENSE), moe_ffn_hidden_size=EXPERT_FFN,
        moe_shared_expert_intermediate_size=SHARED_FFN, moe_router_topk=CHOSEN, moe_router_score_function="sigmoid",
        moe_router_enable_expert_bias=True, moe_router_topk_scaling_factor=SCALING, moe_router_load_balancing_type="none",
        moe_token_dispatcher_type="allgather", mtp_num_layers=1 if predicting else None,
    )  # fmt: skip
    spec = get_gpt_decoder_block_spec(config, use_transformer_engine=False)
    for layer in spec.layer_specs:
        layer.submodules.self_attention.submodules.core_attention = real_megatron.Attention
    mtp = get_gpt_mtp_block_spec(config, spec, use_transformer_engine=False) if predicting else None
    return GPTModel(
        config, spec, VOCAB, PLACES, share_embeddings_and_output_weights=False, position_embedding_type="rope", rotary_base=BASE, mtp_block_spec=mtp
    )  # fmt: skip


def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * weight


def turned(x: torch.Tensor) -> torch.Tensor:
    """Pairs of neighbours, along the last dimension, turned by the place, the first dimension."""
    angles = torch.outer(torch.arange(len(x)), BASE ** -(torch.arange(0, ROPE, 2) / ROPE))
    pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous()) * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.view_as_real(pairs).flatten(-2)


def attend(x: torch.Tensor, own: Weights) -> torch.Tensor:
    count = len(x)
    query = norm(x @ own["q_a_proj.weight"].T, own["q_a_layernorm.weight"]) @ own["q_b_proj.weight"].T
    query = query.view(count, HEADS, NOPE + ROPE)
    latent, shared = (x @ own["kv_a_proj_with_mqa.weight"].T).split([KV_RANK, ROPE], -1)
    both = (norm(latent, own["kv_a_layernorm.weight"]) @ own["kv_b_proj.weight"].T).view(count, HEADS, NOPE + VALUE)
    scores = torch.einsum("qhd,khd->hqk", query[..., :NOPE], both[..., :NOPE])
    scores = scores + torch.einsum("qhd,kd->hqk", turned(query[..., NOPE:]), turned(shared[:, None])[:, 0])
    scores = (scores * (NOPE + ROPE) ** -0.5).masked_fill(torch.triu(torch.ones(count, count, dtype=torch.bool), 1), float("-inf"))
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), both[..., NOPE:]).flatten(1) @ own["o_proj.weight"].T


def gated(x: torch.Tensor, own: Weights, at: str) -> torch.Tensor:
    return (silu(x @ own[f"{at}gate_proj.weight"].T) * (x @ own[f"{at}up_proj.weight"].T)) @ own[f"{at}down_proj.weight"].T


def experts(x: torch.Tensor, own: Weights) -> torch.Tensor:
    scores = (x @ own["mlp.gate.weight"].T).sigmoid()
    chosen = (scores + own[BIAS]).topk(CHOSEN).indices
    parts = scores.gather(1, chosen)
    parts = parts / parts.sum(-1, keepdim=True) * SCALING
    every = torch.stack([gated(x, own, f"mlp.experts.{e}.") for e in range(EXPERTS)], 1)
    routed = (every.gather(1, chosen[..., None].expand(-1, -1, HIDDEN)) * parts[..., None]).sum(1)
    return routed + gated(x, own, "mlp.shared_experts.")


def account(weights: Weights, tokens: torch.Tensor) -> torch.Tensor:
    x = weights["model.embed_tokens.weight"][tokens]
    for i in range(LAYERS):
        own = {name.removeprefix(f"model.layers.{i}."): t for name, t in weights.items() if name.startswith(f"model.layers.{i}.")}
        attention = {name.removeprefix("self_attn."): t for name, t in own.items() if name.startswith("self_attn.")}
        x = x + attend(norm(x, own["input_layernorm.weight"]), attention)
        y = norm(x, own["post_attention_layernorm.weight"])
        x = x + (gated(y, own, "mlp.") if i < DENSE else experts(y, own))
    return norm(x, weights["model.norm.weight"]) @ weights["lm_head.weight"].T


def test_the_logits_are_those_of_a_plain_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real_megatron.checkpointing()
    real_megatron.without_gpu(monkeypatch)
    monkeypatch.setattr("megatron.core.transformer.multi_latent_attention.HAVE_TE", False)  # true without it in some releases
    monkeypatch.setattr("megatron.core.transformer.moe.moe_utils.te_general_gemm", None, raising=False)
    monkeypatch.setattr(torch._dynamo.config, "disable", True)
    weights = huggingface(tmp_path / "hf", dtype=torch.float32)
    ckptc.convert(tmp_path / "hf", tmp_path / "out", to="megatron", settings={"spec": "local"})
    tokens = torch.randint(VOCAB, (1, PLACES), generator=torch.Generator().manual_seed(3))
    mask = torch.triu(torch.ones(PLACES, PLACES, dtype=torch.bool), 1)[None, None]
    with real_megatron.on_one_rank(tmp_path), torch.no_grad():
        for predicting in (True, False):  # the one that predicts calculates more only where it is trained
            model = network(predicting).eval()
            real_megatron.load(model, tmp_path / "out/release")
            if predicting:
                assert torch.equal(model.mtp.layers[0].eh_proj.weight, weights[f"model.layers.{LAYERS}.eh_proj.weight"])
        logits = model(tokens, torch.arange(PLACES)[None], mask)[0]
    wanted = account(weights, tokens[0])
    assert logits.shape == wanted.shape
    assert (logits - wanted).abs().max() < 1e-3 * wanted.abs().max()
