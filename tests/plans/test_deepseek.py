"""A made DeepSeek model to Megatron-core's distributed checkpoints and back, against a plain torch account of both."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ckptc
from ckptc import Fault, MappingError
from tests.asked import asked
from tests.made_deepseek import BIAS, EXPERTS, HIDDEN, LAYERS, VOCAB, Weights, huggingface, layer


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
        dense = "mlp.gate.weight" not in own
        out[at + ("mlp.linear_fc1.layer_norm_weight" if te and dense else "pre_mlp_layernorm.weight")] = own["post_attention_layernorm.weight"]
        for prefix_ in ("mlp.",) if dense else ("mlp.shared_experts.",):
            out[f"{at}{prefix_}linear_fc1.weight"] = torch.cat([own[f"{prefix_}gate_proj.weight"], own[f"{prefix_}up_proj.weight"]])
            out[f"{at}{prefix_}linear_fc2.weight"] = own[f"{prefix_}down_proj.weight"]
        if not dense:
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
    ckptc.convert(tmp_path / "hf", tmp_path / "out", to=to, format=format, settings={"spec": spec})
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
    assert {"further_embed", "further_head"} <= {*plan.data.target.omitted}
    assert "left out on purpose: " in str(plan)
    plan.run(tmp_path / "out")
    assert differing(stored(tmp_path / "out"), renamed(weights, te=True)) == set()


@pytest.mark.parametrize(("first", "every"), [(0, 1), (1, 2), (0, 3), (4, 1)])
@pytest.mark.parametrize("spec", ["te", "local"])
def test_layers_with_experts_are_where_the_config_says(tmp_path: Path, first: int, every: int, spec: str) -> None:
    """Behind the first ones, and of those every so many (modeling_deepseek.py: layer_idx % moe_layer_freq == 0)."""
    sparse = [i for i in range(LAYERS) if i >= first and i % every == 0]
    shapes = {f"model.layers.{i}.{name}": shape for i in range(LAYERS) for name, shape in layer(LAYERS - 1 if i in sparse else 0, True).items()}
    weights = huggingface(tmp_path / "hf", 0, first_k_dense_replace=first, moe_layer_freq=every, num_nextn_predict_layers=0)
    weights |= {name: torch.randn(shape).to(torch.float32 if name.endswith(BIAS) else torch.bfloat16) for name, shape in shapes.items()}
    save_file(weights, tmp_path / "hf/model.safetensors")
    plan = ckptc.plan(tmp_path / "hf", to="megatron", settings={"spec": spec})
    plan.run(tmp_path / "out")
    assert differing(stored(tmp_path / "out"), renamed(weights, spec == "te")) == set()
    asked = {pattern.format(layer=layer) for pattern, axes in plan.data.target.objects for axis, at, n in axes[:1] if axis == "layer" and len(axes) == 1 for layer in range(at, at + n)}
    fc1 = {f"decoder.layers.{i}.mlp.{'shared_experts.' * (i in sparse)}linear_fc1._extra_state" for i in range(LAYERS)}
    assert {name for name in asked if name.endswith("linear_fc1._extra_state")} == fc1
    ckptc.convert(tmp_path / "out", tmp_path / "again", to="hf", config=tmp_path / "hf/config.json")
    assert differing(load_file(tmp_path / "again/model.safetensors"), weights) == set()


@pytest.mark.parametrize(("tp", "pp", "ep", "vpp"), [(1, 1, 1, 1), (3, 1, 2, 1), (1, 2, 4, 1), (3, 6, 2, 1), (1, 2, 1, 3), (3, 3, 2, 2)])
@pytest.mark.parametrize("predictor", ["transformer_layer", "mtp_model_layer"])
def test_files_of_ranks(tmp_path: Path, tp: int, pp: int, ep: int, vpp: int, predictor: str) -> None:
    """Latent vectors are whole on each rank, heads and columns are cut; layers are numbered in their stage, predicting ones
    by themselves, on the last."""
    weights = huggingface(tmp_path / "hf")
    degrees = {"tp": tp, "pp": pp, "ep": ep, "vpp": vpp}
    ckptc.convert(tmp_path / "hf", tmp_path / "out", to="megatron-legacy", **asked(pad_vocab_to=1, vocab_multiple=1, predictor=predictor, padded_vocab=39, **degrees))
    whole = renamed(weights, te=True)
    for stage, t, e, turn in itertools.product(range(pp), range(tp), range(ep), range(vpp)):
        name = f"mp_rank_{t:02}" + f"_{stage:03}" * (pp > 1) + f"_{e:03}" * (ep > 1)
        held = torch.load(tmp_path / f"out/release/{name}/model_optim_rng.pt", weights_only=True)["model" if vpp == 1 else f"model{turn}"]
        held = {key: value for key, value in held.items() if value is not None}
        assert differing(held, on_rank(whole, turn * pp + stage, pp * vpp, t, tp, e, ep, predictor)) == set(), (name, turn)
    ckptc.convert(tmp_path / "out", tmp_path / "again", to="hf", config=tmp_path / "hf/config.json", family="deepseek")
    assert differing(load_file(tmp_path / "again/model.safetensors"), weights) == set()


def test_stages_that_are_given_keep_the_predicting_layer_last(tmp_path: Path) -> None:
    """Stages whose second turn comes before their first, and of other lengths."""
    weights = huggingface(tmp_path / "hf")
    ckptc.convert(tmp_path / "hf", tmp_path / "out", to="megatron-legacy", pp=2, vpp=2, stages=[[0, 1, 4], [5, 2, 3]], settings={"padded_vocab": 39})
    last = torch.load(tmp_path / "out/release/mp_rank_00_001/model_optim_rng.pt", weights_only=True)
    assert torch.equal(last["model0"]["decoder.layers.0.self_attention.linear_proj.weight"], weights["model.layers.5.self_attn.o_proj.weight"])
    assert not [name for name in last["model0"] if name.startswith("mtp.")]
    assert torch.equal(last["model1"]["mtp.layers.0.eh_proj.weight"], weights["model.layers.6.eh_proj.weight"])
    with pytest.raises(MappingError, match="layer` 6 stands after all others"):
        ckptc.convert(tmp_path / "hf", tmp_path / "no", to="megatron-legacy", pp=2, stages=[[0, 1, 2, 6], [3, 4, 5]])


def test_the_predicting_layer_may_stand_on_a_stage_before_the_last(tmp_path: Path) -> None:
    """As in Megatron's own layout for DeepSeek-V3, Et*3|(tt|)*29,m|L; its stage has the embedding too (GPTModel.mtp_process)."""
    weights = huggingface(tmp_path / "hf")
    ckptc.convert(tmp_path / "hf", tmp_path / "out", to="megatron-legacy", pp=4, stages="E|t*3|t*3,m|L", settings={"padded_vocab": 39})
    held = [torch.load(tmp_path / f"out/release/mp_rank_00_{p:03}/model_optim_rng.pt", weights_only=True)["model"] for p in range(4)]
    kinds = [{".".join(name.split(".")[:2]) for name, tensor in each.items() if tensor is not None} for each in held]
    embedding, ends = "embedding.word_embeddings", {"decoder.final_layernorm", "output_layer.weight"}
    assert kinds == [{embedding}, {"decoder.layers"}, {"decoder.layers", "mtp.layers", embedding}, ends]
    assert torch.equal(held[2]["embedding.word_embeddings.weight"][:VOCAB], weights["model.embed_tokens.weight"])
    assert torch.equal(held[2]["mtp.layers.0.eh_proj.weight"], weights["model.layers.6.eh_proj.weight"])
    assert torch.equal(held[2]["decoder.layers.0.self_attention.linear_proj.weight"], weights["model.layers.3.self_attn.o_proj.weight"])
    ckptc.convert(tmp_path / "out", tmp_path / "back", to="hf", config=tmp_path / "hf/config.json")
    back = load_file(tmp_path / "back/model.safetensors")
    assert all(torch.equal(back[name], tensor) for name, tensor in weights.items())


def on_rank(whole: Weights, stage: int, pp: int, t: int, tp: int, e: int, ep: int, predictor: str) -> Weights:
    """What one rank holds of Megatron-core's whole tensors in a turn; `stage` of `pp` counts through all turns. The one that
    predicts further tokens has the embedding as well (GPTModel.mtp_process, megatron/core/models/gpt/gpt_model.py)."""
    out: Weights = {}
    per_stage, per_rank = LAYERS // pp, EXPERTS // ep
    for name, tensor in whole.items():
        kind = name.rsplit(".", 2)[-2]
        if name.startswith("decoder.layers."):
            number = int(name.split(".")[2])
            if number // per_stage != stage:
                continue
            name = name.replace(f"layers.{number}.", f"layers.{number % per_stage}.", 1)
        elif (name.startswith("embedding.") and stage not in (0, pp - 1)) or (not name.startswith("embedding.") and stage != pp - 1):
            continue
        name = name.replace("transformer_layer", predictor)
        if ".experts.experts." in name:
            for local in range(per_rank):
                own = cut(kind, tensor[e * per_rank + local], t, tp)
                out[name.replace("experts.experts.", f"experts.local_experts.{local}.")] = own
        else:
            out[name] = cut(kind, tensor, t, tp)
    return out


def cut(kind: str, tensor: torch.Tensor, t: int, tp: int) -> torch.Tensor:
    if kind in ("word_embeddings", "output_layer"):
        tensor = torch.cat([tensor, tensor.new_zeros(39 - VOCAB, HIDDEN)])
    if tensor.ndim == 2 and kind == "linear_fc1":
        return torch.cat([half.chunk(tp)[t] for half in tensor.chunk(2)])
    if tensor.ndim == 2 and kind in ("word_embeddings", "output_layer", "linear_q_up_proj", "linear_q_proj", "linear_kv_up_proj"):
        return tensor.chunk(tp)[t]
    return tensor.chunk(tp, dim=1)[t] if tensor.ndim == 2 and kind in ("linear_proj", "linear_fc2") else tensor


@pytest.mark.parametrize("to", ["nxdt", "nxdt-megatron", "nnm", "nemo", "nemo-dist", "nemo-legacy"])
def test_other_frameworks_are_refused(tmp_path: Path, to: str) -> None:
    huggingface(tmp_path / "hf")
    with pytest.raises(MappingError, match=f"layout `{to}` cannot hold a `deepseek`: it has no place for its `q_down`"):
        ckptc.convert(tmp_path / "hf", tmp_path / "out", to=to)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"pp": 2}, "whole tensors, for any ranks"), ({"tp": 3}, "whole tensors, for any ranks"), ({"form": "stacked"}, "do not stack")],
    ids=str,
)
def test_layers_that_differ_are_not_stacked_nor_cut(tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    huggingface(tmp_path / "hf")
    with pytest.raises((Fault, MappingError), match=said):
        ckptc.convert(tmp_path / "hf", tmp_path / "out", to="megatron", **asked(**settings))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"quantization_config": {"quant_method": "fp8"}}, "FP8"),
        ({"attention_bias": True}, "attention_bias"), ({"rope_interleave": False}, "rope_interleave"),
        ({"num_key_value_heads": 1}, "share keys and values"), ({"model_type": "llama"}, "another family, `deepseek`"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)  # fmt: skip
def test_models_that_are_otherwise_are_refused(tmp_path: Path, config: dict[str, Any], said: str) -> None:
    huggingface(tmp_path / "hf", **config)
    with pytest.raises((Fault, MappingError), match=said):
        ckptc.convert(tmp_path / "hf", tmp_path / "out", to="megatron")


def test_a_predicting_layer_that_the_config_does_not_count_is_refused(tmp_path: Path) -> None:
    huggingface(tmp_path / "hf", num_nextn_predict_layers=0)
    with pytest.raises((MappingError, Fault), match="tensors that no rule of layout `hf` maps"):
        ckptc.convert(tmp_path / "hf", tmp_path / "out", to="megatron")
