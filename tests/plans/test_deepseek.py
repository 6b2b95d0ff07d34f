"""A made DeepSeek model to Megatron-core's distributed checkpoints and back, against a plain torch account of both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ckptc
from ckptc import Fault, MappingError
from tests.made_deepseek import BIAS, DENSE, EXPERTS, HIDDEN, LAYERS, VOCAB, Weights, huggingface


def renamed(weights: Weights, te: bool, prefix: str = "") -> Weights:
    """Megatron-core's tensors."""
    out = {
        "embedding.word_embeddings.weight": weights["model.embed_tokens.weight"], "output_layer.weight": weights["lm_head.weight"],
        "decoder.final_layernorm.weight": weights["model.norm.weight"],
    }  # fmt: skip
    alike = {
        "input_layernorm.weight": "input_layernorm.weight", "self_attn.q_proj.weight": "self_attention.linear_q_proj.weight",
        "self_attn.q_a_proj.weight": "self_attention.linear_q_down_proj.weight",
        "self_attn.q_b_proj.weight": "self_attention.linear_q_up_proj.weight",
        "self_attn.kv_a_proj_with_mqa.weight": "self_attention.linear_kv_down_proj.weight",
        "self_attn.kv_b_proj.weight": "self_attention.linear_kv_up_proj.weight", "self_attn.o_proj.weight": "self_attention.linear_proj.weight",
        "mlp.gate.weight": "mlp.router.weight", BIAS: "mlp.router.expert_bias",
        "self_attn.q_a_layernorm.weight": f"self_attention.{'linear_q_up_proj.layer_norm_' if te else 'q_layernorm.'}weight",
        "self_attn.kv_a_layernorm.weight": f"self_attention.{'linear_kv_up_proj.layer_norm_' if te else 'kv_layernorm.'}weight",
    }  # fmt: skip
    for i in range(LAYERS + 1):
        own = {name.removeprefix(f"model.layers.{i}."): t for name, t in weights.items() if name.startswith(f"model.layers.{i}.")}
        if not own:
            continue
        at = f"decoder.layers.{i}." if i < LAYERS else "mtp.layers.0.transformer_layer."
        out |= {at + theirs: own[name] for name, theirs in alike.items() if name in own}
        out[at + ("mlp.linear_fc1.layer_norm_weight" if te and i < DENSE else "pre_mlp_layernorm.weight")] = own["post_attention_layernorm.weight"]
        for prefix_ in ("mlp.",) if i < DENSE else ("mlp.shared_experts.",):
            out[f"{at}{prefix_}linear_fc1.weight"] = torch.cat([own[f"{prefix_}gate_proj.weight"], own[f"{prefix_}up_proj.weight"]])
            out[f"{at}{prefix_}linear_fc2.weight"] = own[f"{prefix_}down_proj.weight"]
        if i >= DENSE:
            experts = [f"mlp.experts.{e}." for e in range(EXPERTS)]
            out[f"{at}mlp.experts.experts.linear_fc1.weight"] = torch.stack(
                [torch.cat([own[f"{e}gate_proj.weight"], own[f"{e}up_proj.weight"]]) for e in experts]
            )
            out[f"{at}mlp.experts.experts.linear_fc2.weight"] = torch.stack([own[f"{e}down_proj.weight"] for e in experts])
        if i == LAYERS:
            for name, theirs in {"enorm": "enorm", "hnorm": "hnorm", "eh_proj": "eh_proj", "shared_head.norm": "final_layernorm"}.items():
                out[f"mtp.layers.0.{theirs}.weight"] = own[f"{name}.weight"]
    return {prefix + name: t for name, t in out.items()}


def stored(folder: Path) -> Weights:
    return {t.name: t.read() for t in ckptc.open(folder)}


def differing(got: Weights, wanted: Weights) -> set[str]:
    alike = {name for name in got.keys() & wanted.keys() if got[name].dtype == wanted[name].dtype and torch.equal(got[name], wanted[name])}
    return (got.keys() | wanted.keys()) - alike


@pytest.mark.parametrize(
    ("to", "format", "spec", "layers", "low_rank"),
    [
        ("megatron", "torch_dist", "te", LAYERS + 1, True),
        ("megatron", "torch_dist", "local", LAYERS + 1, True),
        ("megatron", "torch_dist", "te", LAYERS, False),
        ("megatron", "zarr", "local", LAYERS + 1, False),
        ("nemo2", "torch_dist", "te", LAYERS + 1, True),
        ("nemo2", "zarr", "te", LAYERS, True),
    ],
)
def test_to_megatron_core_and_back(tmp_path: Path, to: str, format: str, spec: str, layers: int, low_rank: bool) -> None:
    weights = huggingface(tmp_path / "hf", layers, low_rank)
    ckptc.convert(tmp_path / "hf", tmp_path / "out", to=to, format=format, spec=spec)
    assert differing(stored(tmp_path / "out"), renamed(weights, spec == "te", "module." * (to == "nemo2"))) == set()
    ckptc.convert(tmp_path / "out", tmp_path / "again", to="hf", config=tmp_path / "hf" / "config.json")
    assert differing(load_file(tmp_path / "again" / "model.safetensors"), weights) == set()
    assert (tmp_path / "again" / "config.json").read_text() == (tmp_path / "hf" / "config.json").read_text()


def test_the_correction_of_scores_stays_float32(tmp_path: Path) -> None:
    weights = huggingface(tmp_path / "hf", dtype=torch.float32)
    half = {name: t if name.endswith(BIAS) else t.bfloat16() for name, t in weights.items()}
    ckptc.convert(tmp_path / "hf", tmp_path / "out", to="megatron", dtype="bfloat16")
    assert differing(stored(tmp_path / "out"), renamed(half, te=True)) == set()
    ckptc.convert(tmp_path / "hf", tmp_path / "same", to="hf", dtype="bfloat16")
    assert differing(load_file(tmp_path / "same" / "model.safetensors"), half) == set()


def test_the_embedding_of_a_predicting_layer_is_left_out_and_said_so(tmp_path: Path) -> None:
    weights = huggingface(tmp_path / "hf")
    copies = {f"model.layers.{LAYERS}.{name}.weight": torch.ones(VOCAB, HIDDEN).bfloat16() for name in ("embed_tokens", "shared_head.head")}
    save_file(weights | copies, tmp_path / "hf" / "model.safetensors")
    plan = ckptc.plan(tmp_path / "hf", to="megatron")
    assert {"next_embed", "next_head"} <= {*plan.data.target.omitted}
    assert "left out on purpose: " in str(plan)
    plan.run(tmp_path / "out")
    assert differing(stored(tmp_path / "out"), renamed(weights, te=True)) == set()


@pytest.mark.parametrize("to", ["nxdt", "nxdt-megatron", "nnm", "nemo", "nemo-dist", "nemo-legacy"])
def test_other_frameworks_are_refused(tmp_path: Path, to: str) -> None:
    huggingface(tmp_path / "hf")
    with pytest.raises(MappingError, match=f"`deepseek` has no layout `{to}`"):
        ckptc.convert(tmp_path / "hf", tmp_path / "out", to=to)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"pp": 2}, "whole tensors, for any ranks"), ({"tp": 3}, "whole tensors, for any ranks"), ({"form": "stacked"}, "always indexed"), ({"glu": "parts"}, "always joined")],
    ids=str,
)
def test_layers_that_differ_are_not_stacked_nor_cut(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    huggingface(tmp_path / "hf")
    with pytest.raises(MappingError, match=said):
        ckptc.convert(tmp_path / "hf", tmp_path / "out", to="megatron", **settings)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"quantization_config": {"quant_method": "fp8"}}, "quantized"), ({"moe_layer_freq": 2}, "moe_layer_freq"),
        ({"first_k_dense_replace": 0}, "no layer is dense"), ({"attention_bias": True}, "biases"), ({"rope_interleave": False}, "in halves"),
        ({"num_key_value_heads": 1}, "share keys and values"), ({"model_type": "llama"}, "another family"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)  # fmt: skip
def test_models_that_are_otherwise_are_refused(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    huggingface(tmp_path / "hf", **config)
    with pytest.raises(MappingError, match=said):
        ckptc.convert(tmp_path / "hf", tmp_path / "out", to="megatron")


def test_a_predicting_layer_that_the_config_does_not_count_is_refused(tmp_path: Path) -> None:
    huggingface(tmp_path / "hf", num_nextn_predict_layers=0)
    with pytest.raises((MappingError, Fault), match="next"):
        ckptc.convert(tmp_path / "hf", tmp_path / "out", to="megatron")
