"""Which modules have an object in a distributed checkpoint, as Megatron-core with Transformer Engine 2 asks for them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

import ckptc
from tests.held import counted

from .test_deepseek import LAYERS as DEEP
from .test_deepseek import huggingface
from .test_megatron_families import AT, FAMILIES, FFN, LAYERS, VOCAB, gated, layers, saved

# megatron/core/transformer/utils.py, make_sharded_tensors_for_checkpoint: what ends in _extra_state is an object. Transformer
# Engine's norms are operations from release 2 (pytorch/ops/op.py, BasicOperation.get_extra_state), TENorm makes them, and
# megatron/core/models/gpt/gpt_layer_specs.py says where: q_layernorm, k_layernorm, pre_mlp_layernorm where there are experts,
# input_layernorm with latent attention; transformer_block.py the last one; multi_token_prediction.py its own.
LINEAR = {"self_attention.linear_qkv", "self_attention.linear_proj", "self_attention.core_attention"}
DENSE = {"mlp.linear_fc1", "mlp.linear_fc2"}
QK = {"self_attention.q_layernorm", "self_attention.k_layernorm"}
SPARSE = {"mlp.experts.experts.linear_fc1", "mlp.experts.experts.linear_fc2", "pre_mlp_layernorm"}
MODULES = {
    "llama": LINEAR | DENSE, "nemotron": LINEAR | DENSE, "qwen3": LINEAR | DENSE | QK, "mixtral": LINEAR | SPARSE, "qwen3_moe": LINEAR | SPARSE | QK,
    "qwen2_moe": LINEAR | SPARSE | {"mlp.shared_experts.linear_fc1", "mlp.shared_experts.linear_fc2"},
}  # fmt: skip


def objects(folder: Path) -> set[str]:
    return {key.removesuffix(".pt") for _, key in ckptc.open(folder).others if "_extra_state" in key}


def modules(keys: set[str]) -> set[str]:
    return {key.rpartition("._extra_state/")[0] for key in keys}


@pytest.mark.parametrize("format", ["torch_dist", "zarr"])
@pytest.mark.parametrize("family", MODULES)
def test_each_module_that_has_a_state_has_an_object(family: str, format: str, tmp_path: Path) -> None:
    shapes, keys = FAMILIES[family]
    ckptc.convert(saved(tmp_path / "hf", family, counted(shapes), keys), tmp_path / "out", to="megatron", format=format)
    found = objects(tmp_path / "out")
    assert modules(found) == {f"decoder.layers.{name}" for name in MODULES[family]} | {"decoder.final_layernorm"}
    norms = {key for key in found if "_layernorm." in key and "final" not in key}
    assert norms == {f"decoder.layers.{n}._extra_state/shard_{i}_{LAYERS}" for n in MODULES[family] if "layernorm" in n for i in range(LAYERS)}
    assert "decoder.final_layernorm._extra_state/shard_0_1" in found


@pytest.mark.parametrize("family", ["qwen3", "qwen3_moe"])
def test_megatron_cores_own_norms_have_none(family: str, tmp_path: Path) -> None:
    shapes, keys = FAMILIES[family]
    source = saved(tmp_path / "hf", family, counted(shapes), keys)
    ckptc.convert(source, tmp_path / "out", to="megatron", settings={"spec": "local"})
    assert not {name for name in modules(objects(tmp_path / "out")) if "norm" in name or "core_attention" in name}


def test_norms_before_experts_have_one_in_the_layers_that_have_experts(tmp_path: Path) -> None:
    shapes, keys = FAMILIES["qwen3_moe"]
    dense = {n: s for n, s in layers(AT, gated("mlp.", FFN + 1)).items() if n.startswith(f"{AT}1.")}
    some = {n: s for n, s in shapes.items() if not n.startswith(f"{AT}1.mlp.")} | dense
    source = saved(tmp_path / "hf", "qwen3_moe", counted(some), {**keys, "mlp_only_layers": [1], "intermediate_size": FFN + 1})
    ckptc.convert(source, tmp_path / "out", to="megatron")
    norms = {key for key in objects(tmp_path / "out") if "pre_mlp" in key}
    assert norms == {f"decoder.layers.{i}.pre_mlp_layernorm._extra_state/shard_0_1" for i in (0, 2)}


def test_latent_attention_has_a_norm_before_it_and_predicting_layers_have_their_own(tmp_path: Path) -> None:
    huggingface(tmp_path / "hf", layers=DEEP + 1)
    ckptc.convert(tmp_path / "hf", tmp_path / "out", to="megatron")
    norms = {name for name in modules(objects(tmp_path / "out")) if "norm" in name}
    assert {name for name in norms if name.endswith("input_layernorm")} == {f"decoder.layers.{i}.input_layernorm" for i in range(DEEP)} | {
        "mtp.layers.0.transformer_layer.input_layernorm"
    }
    assert {name.removeprefix("mtp.layers.0.") for name in norms if name.startswith("mtp.")} == {
        "enorm", "hnorm", "final_layernorm", "transformer_layer.input_layernorm", "transformer_layer.pre_mlp_layernorm"
    }  # fmt: skip


def test_files_of_ranks_are_read_with_the_states_of_norms_and_written_without(tmp_path: Path) -> None:
    shapes, keys = FAMILIES["qwen3_moe"]
    source = saved(tmp_path / "hf", "qwen3_moe", counted(shapes), keys)
    ckptc.convert(source, tmp_path / "out", to="megatron-legacy")
    path = tmp_path / "out/release/mp_rank_00/model_optim_rng.pt"
    top = torch.load(path, weights_only=True)
    names = [n for n in top["model"] if n.endswith("norm.weight")]
    assert not [n for n in top["model"] if n.endswith("norm._extra_state")]
    top["model"] |= {n.replace(".weight", "._extra_state"): torch.empty(0, dtype=torch.uint8) for n in names}
    torch.save(top, path)
    ckptc.convert(tmp_path / "out", tmp_path / "back", to="hf", config=source / "config.json")
    back = {t.name: t.read() for t in ckptc.open(tmp_path / "back")}
    wanted = {t.name: t.read() for t in ckptc.open(source)}
    assert back.keys() == wanted.keys()
    assert [n for n in wanted if not torch.equal(back[n], wanted[n])] == []


def test_a_state_that_is_an_object_is_dropped_and_an_object_among_the_weights_refused(tmp_path: Path) -> None:
    """Transformer Engine 1 serialises it into io.BytesIO (pytorch/module/base.py, get_extra_state), which pickles by class."""
    shapes, keys = FAMILIES["llama"]
    source = saved(tmp_path / "hf", "llama", counted(shapes), keys)
    ckptc.convert(source, tmp_path / "nemo", to="nemo")
    path = tmp_path / "nemo/model_weights.ckpt"
    weights = torch.load(path, weights_only=True)
    state = io.BytesIO()
    torch.save(None, state)
    objects = {f"model.decoder.layers.{i}.{name}._extra_state": state for i in range(LAYERS) for name in LINEAR | DENSE}
    torch.save(weights | objects, path)
    ckptc.convert(tmp_path / "nemo", tmp_path / "back", to="hf", settings={"vocab": VOCAB})
    back, wanted = ({t.name: t.read() for t in ckptc.open(place)} for place in (tmp_path / "back", source))
    assert back.keys() == wanted.keys()
    assert [n for n in wanted if not torch.equal(back[n], wanted[n])] == []
    torch.save(weights | {"model.decoder.layers.0.mlp.linear_fc1.bias": state}, path)
    with pytest.raises(ckptc.Fault, match=r"_io\.BytesIO"):
        ckptc.open(tmp_path / "nemo")
