"""Each HuggingFace family to NeMo 1 with Megatron-core's names, at TP 2, against a plain torch account of the framework.

Sizes are pairwise distinct and no weight is square: a wrong order or transpose cannot hide.
"""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ckptc
from tests.held import counted, same

Weights = dict[str, torch.Tensor]
LAYERS, HIDDEN, FFN, HEADS, GROUPS, DIM, VOCAB, EXPERTS, PLACES, TP = 3, 40, 36, 8, 4, 5, 30, 3, 13, 2
COMMON = {
    "num_hidden_layers": LAYERS, "hidden_size": HIDDEN, "intermediate_size": FFN, "num_attention_heads": HEADS,
    "num_key_value_heads": GROUPS, "vocab_size": VOCAB, "tie_word_embeddings": False, "rms_norm_eps": 1e-5, "rope_theta": 500.0,
}  # fmt: skip


def layers(prefix: str, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {f"{prefix}{i}.{name}": shape for i in range(LAYERS) for name, shape in shapes.items()}


ATTENTION = {
    "self_attn.q_proj.weight": (HEADS * DIM, HIDDEN), "self_attn.k_proj.weight": (GROUPS * DIM, HIDDEN),
    "self_attn.v_proj.weight": (GROUPS * DIM, HIDDEN), "self_attn.o_proj.weight": (HIDDEN, HEADS * DIM),
    "input_layernorm.weight": (HIDDEN,), "post_attention_layernorm.weight": (HIDDEN,),
}  # fmt: skip
BIASES = {"self_attn.q_proj.bias": (HEADS * DIM,), "self_attn.k_proj.bias": (GROUPS * DIM,), "self_attn.v_proj.bias": (GROUPS * DIM,)}
GATED = {"mlp.gate_proj.weight": (FFN, HIDDEN), "mlp.up_proj.weight": (FFN, HIDDEN), "mlp.down_proj.weight": (HIDDEN, FFN)}
PLAIN = {"mlp.up_proj.weight": (FFN, HIDDEN), "mlp.down_proj.weight": (HIDDEN, FFN)}
NORM_BIASES = {"input_layernorm.bias": (HIDDEN,), "post_attention_layernorm.bias": (HIDDEN,)}
MOE = {"block_sparse_moe.gate.weight": (EXPERTS, HIDDEN)} | {
    f"block_sparse_moe.experts.{e}.{w}.weight": (HIDDEN, FFN) if w == "w2" else (FFN, HIDDEN) for e in range(EXPERTS) for w in ("w1", "w2", "w3")
}
ENDS = {"model.embed_tokens.weight": (VOCAB, HIDDEN), "model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCAB, HIDDEN)}

FAMILIES: dict[str, tuple[dict[str, tuple[int, ...]], dict[str, Any]]] = {
    "llama": (ENDS | layers("model.layers.", ATTENTION | GATED), {}),
    "mistral": (ENDS | layers("model.layers.", ATTENTION | GATED), {"sliding_window": 17}),
    "qwen2": (ENDS | layers("model.layers.", ATTENTION | GATED | BIASES), {}),
    "mixtral": (ENDS | layers("model.layers.", ATTENTION | MOE), {"num_local_experts": EXPERTS}),
    "nemotron": (
        ENDS | {"model.norm.bias": (HIDDEN,)} | layers("model.layers.", ATTENTION | PLAIN | NORM_BIASES),
        {"norm_eps": 1e-5, "hidden_act": "relu2", "partial_rotary_factor": 0.5},
    ),
}


def split(whole: torch.Tensor, rank: int, dim: int = 0) -> torch.Tensor:
    return whole.chunk(TP, dim)[rank]


def qkv(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Group by group: its query heads, its key head, its value head."""
    parts = [x.reshape(GROUPS, -1, *x.shape[1:]) for x in (q, k, v)]
    return torch.cat(parts, 1).flatten(0, 1)


def nemo(hf: Weights, rank: int) -> Weights:
    """What Megatron-core holds on one tensor parallel rank."""
    rows = VOCAB + -VOCAB % (2 * TP)  # 30 is twice an odd number: make_vocab_size_divisible_by is 2

    def padded(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, torch.zeros(rows - VOCAB, HIDDEN)])

    out = {
        "model.embedding.word_embeddings.weight": split(padded(hf["model.embed_tokens.weight"]), rank),
        "model.output_layer.weight": split(padded(hf["lm_head.weight"]), rank),
        "model.decoder.final_layernorm.weight": hf["model.norm.weight"],
    }
    if "model.norm.bias" in hf:
        out["model.decoder.final_layernorm.bias"] = hf["model.norm.bias"]
    for i in range(LAYERS):
        h = {name.removeprefix(f"model.layers.{i}."): x for name, x in hf.items() if name.startswith(f"model.layers.{i}.")}
        at, moe = f"model.decoder.layers.{i}.", "block_sparse_moe.gate.weight" in h
        for kind in ("weight", "bias"):
            if f"self_attn.q_proj.{kind}" in h:
                joined = qkv(*(h[f"self_attn.{p}_proj.{kind}"] for p in "qkv"))
                out[at + f"self_attention.linear_qkv.{kind}"] = split(joined, rank)
            if f"input_layernorm.{kind}" in h:
                out[at + f"self_attention.linear_qkv.layer_norm_{kind}"] = h[f"input_layernorm.{kind}"]
                out[at + ("pre_mlp_layernorm." if moe else "mlp.linear_fc1.layer_norm_") + kind] = h[f"post_attention_layernorm.{kind}"]
        out[at + "self_attention.linear_proj.weight"] = split(h["self_attn.o_proj.weight"], rank, 1)
        if moe:
            out[at + "mlp.router.weight"] = h["block_sparse_moe.gate.weight"]
            for e in range(EXPERTS):
                gate, down, up = (h[f"block_sparse_moe.experts.{e}.{w}.weight"] for w in ("w1", "w2", "w3"))
                expert = at + f"mlp.experts.local_experts.{e}."
                out[expert + "linear_fc1.weight"] = torch.cat([split(gate, rank), split(up, rank)])
                out[expert + "linear_fc2.weight"] = split(down, rank, 1)
            continue
        up = split(h["mlp.up_proj.weight"], rank)
        out[at + "mlp.linear_fc1.weight"] = torch.cat([split(h["mlp.gate_proj.weight"], rank), up]) if "mlp.gate_proj.weight" in h else up
        out[at + "mlp.linear_fc2.weight"] = split(h["mlp.down_proj.weight"], rank, 1)
    return out


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_becomes_what_the_framework_holds_and_comes_back(family: str, tmp_path: Path) -> None:
    shapes, keys = FAMILIES[family]
    hf = counted(shapes)
    (tmp_path / "hf").mkdir()
    save_file(hf, tmp_path / "hf/model.safetensors")
    (tmp_path / "hf/config.json").write_text(json.dumps({"model_type": family, **COMMON, **keys}))
    made = ckptc.plan(tmp_path / "hf", to="nemo", tp=TP)
    assert made.data.mapping == family
    made.run(tmp_path / "out.nemo")
    with tarfile.open(tmp_path / "out.nemo") as tar:
        for rank in range(TP):
            member = tar.extractfile(f"./mp_rank_{rank:02}/model_weights.ckpt")
            assert member is not None
            found = torch.load(io.BytesIO(member.read()), weights_only=True)
            wanted = nemo(hf, rank)
            assert found.keys() == wanted.keys()
            assert [n for n in wanted if not torch.equal(found[n], wanted[n])] == []
    ckptc.plan(tmp_path / "out.nemo", to="hf", family=family, settings={"vocab": VOCAB}).run(tmp_path / "back")
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)
    config = json.loads((tmp_path / "back/config.json").read_text())
    assert {k: config[k] for k in ("model_type", "vocab_size", "rope_theta")} == {"model_type": family, "vocab_size": VOCAB, "rope_theta": 500.0}


def test_gpt2_is_turned_and_its_positions_are_kept(tmp_path: Path) -> None:
    """GPT-2 stores its projections as [in, out], query, key and value in blocks of columns."""
    block = {
        "ln_1.weight": (HIDDEN,), "ln_1.bias": (HIDDEN,), "attn.c_attn.weight": (HIDDEN, 3 * HIDDEN), "attn.c_attn.bias": (3 * HIDDEN,),
        "attn.c_proj.weight": (HIDDEN, HIDDEN), "attn.c_proj.bias": (HIDDEN,), "ln_2.weight": (HIDDEN,), "ln_2.bias": (HIDDEN,),
        "mlp.c_fc.weight": (HIDDEN, FFN), "mlp.c_fc.bias": (FFN,), "mlp.c_proj.weight": (FFN, HIDDEN), "mlp.c_proj.bias": (HIDDEN,),
    }  # fmt: skip
    hf = counted(
        {"transformer.wte.weight": (VOCAB, HIDDEN), "transformer.wpe.weight": (PLACES, HIDDEN)}
        | layers("transformer.h.", block)
        | {"transformer.ln_f.weight": (HIDDEN,), "transformer.ln_f.bias": (HIDDEN,)}
    )
    (tmp_path / "hf").mkdir()
    save_file(hf, tmp_path / "hf/model.safetensors")
    config = {
        "model_type": "gpt2", "n_layer": LAYERS, "n_embd": HIDDEN, "n_inner": FFN, "n_head": HEADS, "n_positions": PLACES, "vocab_size": VOCAB,
    }  # fmt: skip
    (tmp_path / "hf/config.json").write_text(json.dumps(config))
    ckptc.plan(tmp_path / "hf", to="nemo", tp=TP).run(tmp_path / "out")
    for rank in range(TP):
        found = torch.load(tmp_path / f"out/mp_rank_{rank:02}/model_weights.ckpt", weights_only=True)
        assert torch.equal(found["model.embedding.position_embeddings.weight"], hf["transformer.wpe.weight"])
        assert "model.output_layer.weight" not in found
        for i in range(LAYERS):
            h = {n.removeprefix(f"transformer.h.{i}."): x for n, x in hf.items()}
            for kind in ("weight", "bias"):
                parts = [x.reshape(HEADS, HIDDEN // HEADS, *x.shape[1:]) for x in h[f"attn.c_attn.{kind}"].t().chunk(3)]
                joined = torch.cat(parts, 1).flatten(0, 1)
                assert torch.equal(found[f"model.decoder.layers.{i}.self_attention.linear_qkv.{kind}"], split(joined, rank))
                assert torch.equal(found[f"model.decoder.layers.{i}.mlp.linear_fc1.{kind}"], split(h[f"mlp.c_fc.{kind}"].t(), rank))
            assert torch.equal(found[f"model.decoder.layers.{i}.self_attention.linear_proj.weight"], split(h["attn.c_proj.weight"].T, rank, 1))
            assert torch.equal(found[f"model.decoder.layers.{i}.mlp.linear_fc2.weight"], split(h["mlp.c_proj.weight"].T, rank, 1))
            assert torch.equal(found[f"model.decoder.layers.{i}.mlp.linear_fc2.bias"], h["mlp.c_proj.bias"])
    ckptc.plan(tmp_path / "out", to="hf", settings={"vocab": VOCAB}).run(tmp_path / "back")
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)
