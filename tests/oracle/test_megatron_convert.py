"""HuggingFace's twin of what Megatron-core saved, and back: the hashes are those of the framework's own tensors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptc

from .megatron_cases import MEGATRON, expected, folders, seen

TWINS = {"bfloat16": MEGATRON / "hf_v0.20dev_dense_tp1", "float32": MEGATRON / "hf_v0.20dev_dense_tp1_fp32"}
ALL = [p for kind in ("torch_dist", "zarr", "own_writer") for p in folders(kind)]
# Values hang on names, so the twin is not one of what has other names.
DENSE = [p for p in ALL if "moe" not in p.id and "perlayer" not in p.id]
Contents = dict[str, dict[str, Any]]


def contents(path: Path) -> Contents:
    return {tensor.name: seen(tensor.read()) for tensor in ckptc.open(path)}


def plain(found: Contents) -> Contents:
    return {name: {key: value[key] for key in ("shape", "dtype", "sha256")} for name, value in found.items()}


def ends(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        "model.embed_tokens.weight": stored["embedding.word_embeddings.weight"], "lm_head.weight": stored["output_layer.weight"],
        "model.norm.weight": stored["decoder.final_layernorm.weight"],
    }  # fmt: skip


def attention(layer: dict[str, torch.Tensor], i: int) -> dict[str, torch.Tensor]:
    """Layer `i` but for its feed-forward network: 2 groups of 4 query heads, a key and a value head, 8 rows each."""
    at = f"model.layers.{i}."
    qkv = layer["self_attention.linear_qkv.weight"].view(2, 6, 8, 64)
    return {
        f"{at}input_layernorm.weight": layer["self_attention.linear_qkv.layer_norm_weight"],
        f"{at}post_attention_layernorm.weight": layer["mlp.linear_fc1.layer_norm_weight"],
        f"{at}self_attn.q_proj.weight": qkv[:, :4].reshape(64, 64),
        f"{at}self_attn.k_proj.weight": qkv[:, 4].reshape(16, 64),
        f"{at}self_attn.v_proj.weight": qkv[:, 5].reshape(16, 64),
        f"{at}self_attn.o_proj.weight": layer["self_attention.linear_proj.weight"],
    }


@pytest.mark.skipif(not MEGATRON.is_dir(), reason=f"no oracle data: {MEGATRON} is absent")
@pytest.mark.parametrize("format", ["torch_dist", "zarr"])
@pytest.mark.parametrize("dtype", TWINS)
def test_a_twin_becomes_what_megatron_core_saved(tmp_path: Path, dtype: str, format: str) -> None:
    ckptc.convert(TWINS[dtype], tmp_path / "out", to="megatron", format=format)
    wanted = MEGATRON / "torch_dist" / ("v0.20dev_dense_tp1" + "_fp32" * (dtype == "float32"))
    assert contents(tmp_path / "out") == plain(expected(wanted))
    indexed = tmp_path / "indexed"
    ckptc.convert(TWINS[dtype], indexed, to="megatron", format=format, settings={"form": "indexed"})
    assert "decoder.layers.3.mlp.linear_fc1.weight" in contents(indexed)
    ckptc.convert(indexed, tmp_path / "stacked", to="megatron", settings={"form": "stacked"}, config=TWINS[dtype] / "config.json")
    assert contents(tmp_path / "stacked") == plain(expected(wanted))


@pytest.mark.parametrize("path", DENSE)
def test_what_any_release_saved_becomes_the_twin(tmp_path: Path, path: Path) -> None:
    dtype = next(iter(expected(path).values()))["dtype"]
    twin = TWINS[dtype]
    ckptc.convert(path, tmp_path / "out", to="hf", config=twin / "config.json")
    assert contents(tmp_path / "out") == contents(twin)


@pytest.mark.parametrize("path", [p for p in ALL if "moe_seq" in p.id and "shexp" not in p.id])
def test_experts_become_those_of_mixtral(tmp_path: Path, path: Path) -> None:
    """Against plain slices of the global tensors, which the framework's own hashes prove."""
    (tmp_path / "config.json").write_text(json.dumps({
        "model_type": "mixtral", "num_hidden_layers": 4, "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 8,
        "num_key_value_heads": 2, "head_dim": 8, "num_local_experts": 4, "num_experts_per_tok": 2, "vocab_size": 128, "tie_word_embeddings": False,
    }))  # fmt: skip
    ckptc.convert(path, tmp_path / "out", to="hf", config=tmp_path / "config.json")
    stored = {t.name: t.read() for t in ckptc.open(path)}
    wanted = ends(stored)
    for i in range(4):
        layer = {name.removeprefix("decoder.layers."): tensor[i] for name, tensor in stored.items() if name.startswith("decoder.layers.")}
        wanted |= attention(layer, i) | {f"model.layers.{i}.block_sparse_moe.gate.weight": layer["mlp.router.weight"]}
        for e in range(4):
            gate, up = layer["mlp.experts.experts.linear_fc1.weight"][e].chunk(2)
            expert = f"model.layers.{i}.block_sparse_moe.experts.{e}."
            wanted |= {f"{expert}w1.weight": gate, f"{expert}w3.weight": up, f"{expert}w2.weight": layer["mlp.experts.experts.linear_fc2.weight"][e]}
    got = {t.name: t.read() for t in ckptc.open(tmp_path / "out")}
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    ckptc.convert(tmp_path / "out", tmp_path / "again", to="megatron", settings={"spec": "local"})
    assert contents(tmp_path / "again") == plain(expected(path))


@pytest.mark.parametrize("path", [p for p in ALL if "perlayer" in p.id])
def test_layers_in_tensors_of_their_own_are_read(tmp_path: Path, path: Path) -> None:
    ckptc.convert(path, tmp_path / "out", to="hf", config=TWINS["bfloat16"] / "config.json")
    stored = {t.name: t.read() for t in ckptc.open(path)}
    wanted = ends(stored)
    for i in range(4):
        layer = {name.removeprefix(f"decoder.layers.{i}."): tensor for name, tensor in stored.items() if name.startswith(f"decoder.layers.{i}.")}
        gate, up = layer["mlp.linear_fc1.weight_w"], layer["mlp.linear_fc1.weight_v"]
        mlp = f"model.layers.{i}.mlp."
        wanted |= attention(layer, i)
        wanted |= {f"{mlp}gate_proj.weight": gate, f"{mlp}up_proj.weight": up, f"{mlp}down_proj.weight": layer["mlp.linear_fc2.weight"]}
    got = {t.name: t.read() for t in ckptc.open(tmp_path / "out")}
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
