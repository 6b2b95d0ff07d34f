"""What Megatron-core saved of a model with latent attention and one dense layer before three of experts, to HuggingFace's
names and back: against a plain account of its global tensors, and to the hashes and objects of the framework's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp

import ckptc

from .megatron_cases import MEGATRON, expected, seen

SAVED = MEGATRON / "torch_dist" / "v0.20dev_mla_moe_densefirst"
CONFIG = {
    "model_type": "deepseek_v2", "vocab_size": 128, "num_hidden_layers": 4, "first_k_dense_replace": 1, "hidden_size": 64,
    "intermediate_size": 176, "moe_intermediate_size": 96, "n_routed_experts": 4, "n_shared_experts": 1, "num_attention_heads": 8,
    "num_key_value_heads": 8, "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8,
}  # fmt: skip
SHARED = 32  # the shared expert is smaller than the others, which HuggingFace's config cannot say


def account(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """HuggingFace's tensors from Megatron-core's, which its local modules name."""
    out = {
        "model.embed_tokens.weight": stored["embedding.word_embeddings.weight"],
        "model.norm.weight": stored["decoder.final_layernorm.weight"], "lm_head.weight": stored["output_layer.weight"],
    }  # fmt: skip
    for i in range(4):
        layer, at = f"decoder.layers.{i}.", f"model.layers.{i}."
        for theirs, ours in {
            "input_layernorm": "input_layernorm", "post_attention_layernorm": "pre_mlp_layernorm",
            "self_attn.q_a_proj": "self_attention.linear_q_down_proj", "self_attn.q_a_layernorm": "self_attention.q_layernorm",
            "self_attn.q_b_proj": "self_attention.linear_q_up_proj",
            "self_attn.kv_a_proj_with_mqa": "self_attention.linear_kv_down_proj",
            "self_attn.kv_a_layernorm": "self_attention.kv_layernorm", "self_attn.kv_b_proj": "self_attention.linear_kv_up_proj",
            "self_attn.o_proj": "self_attention.linear_proj",
        }.items():  # fmt: skip
            out[f"{at}{theirs}.weight"] = stored[f"{layer}{ours}.weight"]
        blocks = {"mlp.": ("mlp.", None)} if i == 0 else {"mlp.shared_experts.": ("mlp.shared_experts.", None)}
        if i:
            out[f"{at}mlp.gate.weight"] = stored[f"{layer}mlp.router.weight"]
            blocks |= {f"mlp.experts.{e}.": ("mlp.experts.experts.", e) for e in range(4)}
        for theirs, (ours, expert) in blocks.items():
            fc1, fc2 = (stored[f"{layer}{ours}linear_fc{n}.weight"] for n in (1, 2))
            if expert is not None:
                fc1, fc2 = fc1[expert], fc2[expert]
            out[f"{at}{theirs}gate_proj.weight"], out[f"{at}{theirs}up_proj.weight"] = fc1.chunk(2)
            out[f"{at}{theirs}down_proj.weight"] = fc2
    return out


def objects(folder: Path) -> set[str]:
    return {name for name in dcp.FileSystemReader(folder).read_metadata().state_dict_metadata if "_extra_state" in name}


@pytest.mark.skipif(not SAVED.is_dir(), reason=f"no oracle data: {SAVED} is absent")
def test_what_megatron_core_saved_becomes_huggingfaces_and_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    ckptc.convert(SAVED, tmp_path / "out", to="hf", config=tmp_path / "config.json", settings={"shared_ffn": SHARED}, accept=["shared_ffn"])
    wanted = account({t.name: t.read() for t in ckptc.open(SAVED)})
    got = {t.name: t.read() for t in ckptc.open(tmp_path / "out")}
    assert got.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(got[name], wanted[name])] == []
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == CONFIG

    ckptc.convert(tmp_path / "out", tmp_path / "again", to="megatron", settings={"spec": "local", "shared_ffn": SHARED})
    known = {name: {key: value[key] for key in ("shape", "dtype", "sha256")} for name, value in expected(SAVED).items()}
    assert {t.name: seen(t.read()) for t in ckptc.open(tmp_path / "again")} == known
    assert objects(tmp_path / "again" / "release") == objects(SAVED)
