"""NeMo 1's training files with virtual stages: a model for each turn of a rank, made here by plain torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import ckptc
from ckptc import Fault, MappingError
from ckptc.main import main

from . import llama

LAYERS, TP, PP, VPP = 8, 2, 2, 2
MODEL = llama.Llama(vocab=52, layers=LAYERS, hidden=24, ffn=42, heads=6, groups=6, dim=10, head=False, extra={"tie_word_embeddings": True})
CONFIG = {
    "num_layers": LAYERS, "hidden_size": 24, "ffn_hidden_size": 42, "num_attention_heads": 6, "kv_channels": 10, "normalization": "rmsnorm",
    "activation": "fast-swiglu", "position_embedding_type": "rope", "bias": False, "share_embeddings_and_output_weights": True,
    "make_vocab_size_divisible_by": 13, "layernorm_epsilon": 1e-5, "mcore_gpt": False, "micro_batch_size": 1, "global_batch_size": 4,
    "tensor_model_parallel_size": TP, "pipeline_model_parallel_size": PP, "virtual_pipeline_model_parallel_size": VPP,
}  # fmt: skip


def layer(held: dict[str, torch.Tensor], number: int, rank: int) -> dict[str, torch.Tensor]:
    """A layer of a tensor parallel rank, as NeMo's own modules have it: each head's query, key and value together."""
    of = {name: held[f"model.layers.{number}.{name}.weight"] for name in (
        "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
        "input_layernorm", "post_attention_layernorm",
    )}  # fmt: skip
    heads = torch.stack([of[f"self_attn.{x}_proj"].reshape(6, 10, 24) for x in "qkv"], dim=1)
    return {
        "input_layernorm.weight": of["input_layernorm"],
        "self_attention.query_key_value.weight": heads.chunk(TP)[rank].reshape(-1, 24).clone(),
        "self_attention.dense.weight": of["self_attn.o_proj"].chunk(TP, dim=1)[rank].clone(),
        "post_attention_layernorm.weight": of["post_attention_layernorm"],
        "mlp.dense_h_to_4h.weight": torch.cat([of[f"mlp.{x}_proj"].chunk(TP)[rank] for x in ("gate", "up")]),
        "mlp.dense_4h_to_h.weight": of["mlp.down_proj"].chunk(TP, dim=1)[rank].clone(),
    }


@pytest.fixture
def run(tmp_path: Path) -> Path:
    held = MODEL.tensors()
    words = held["model.embed_tokens.weight"]
    for rank in range(TP):
        for stage in range(PP):
            file: dict[str, Any] = {"pytorch-lightning_version": "2.0.9", "state_dict": {}, "global_step": 3, "hyper_parameters": {"cfg": CONFIG}}
            for turn in range(VPP):
                first = turn * (LAYERS // VPP) + stage * (LAYERS // (PP * VPP))
                own = range(first, first + LAYERS // (PP * VPP))
                encoder = {f"layers.{i}.{name}": tensor for i, number in enumerate(own) for name, tensor in layer(held, number, rank).items()}
                model: dict[str, Any] = {"language_model": {"encoder": encoder}}
                if (stage, turn) == (0, 0):
                    model["language_model"]["embedding"] = {"word_embeddings": {"weight": words.chunk(TP)[rank].clone()}}
                if (stage, turn) == (PP - 1, VPP - 1):
                    encoder["final_layernorm.weight"] = held["model.norm.weight"]
                    model["word_embeddings_for_head"] = {"weight": words.chunk(TP)[rank].clone()}
                file[f"model{turn}"] = model
            folder = tmp_path / f"run/tp_rank_{rank:02}_pp_rank_{stage:03}"
            folder.mkdir(parents=True)
            torch.save(file, folder / "last.ckpt")
    return tmp_path / "run"


def test_it_becomes_huggingface(run: Path, tmp_path: Path) -> None:
    plan = ckptc.plan(run / "last.ckpt", to="hf", family="llama")
    assert plan.data.source.layout == "nemo-interleaved"
    assert dict(plan.data.source.params)["vpp"] == VPP
    plan.run(tmp_path / "hf")
    held = llama.read(tmp_path / "hf")
    assert held.keys() == MODEL.tensors().keys()
    assert all(torch.equal(held[name], tensor) for name, tensor in MODEL.tensors().items())


@pytest.mark.parametrize(("tp", "pp"), [(1, 1), (3, 2)])
def test_the_scripts_command_makes_an_archive_without_virtual_stages(run: Path, tmp_path: Path, tp: int, pp: int) -> None:
    (tmp_path / "hparams.yaml").write_text(yaml.safe_dump({"cfg": CONFIG}))
    words = [
        "compat", "megatron_change_num_partitions", "--model_extracted_dir", str(run), "--ckpt_name", "last.ckpt", "--hparams_file",
        str(tmp_path / "hparams.yaml"), "--target_file", str(tmp_path / "out.nemo"), "--tensor_model_parallel_size", str(TP),
        "--pipeline_model_parallel_size", str(PP), "--virtual_pipeline_model_parallel_size", str(VPP), "--target_tensor_model_parallel_size",
        str(tp), "--target_pipeline_model_parallel_size", str(pp), "--precision", "bf16",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as done:
        main(words)
    assert done.value.code == 0
    ckptc.convert(tmp_path / "out.nemo", tmp_path / "hf", to="hf", family="llama", settings={"vocab": 52})
    held = llama.read(tmp_path / "hf")
    assert all(torch.equal(held[name], tensor) for name, tensor in MODEL.tensors().items())
    opened = ckptc.open(tmp_path / "out.nemo")
    assert not any(name.startswith("model0") for name in (tensor.name for tensor in opened))
    config = opened.config("model_config.yaml")
    assert config["virtual_pipeline_model_parallel_size"] is None
    assert config["tensor_model_parallel_size"] == tp


def test_convert_says_so_in_the_config_too(run: Path, tmp_path: Path) -> None:
    ckptc.convert(run / "last.ckpt", tmp_path / "out.nemo", to="nemo-legacy", tp=1, pp=4)
    config = ckptc.open(tmp_path / "out.nemo").config("model_config.yaml")
    assert config["virtual_pipeline_model_parallel_size"] is None
    assert config["pipeline_model_parallel_size"] == 4


def test_the_other_command_keeps_its_ranks(run: Path, tmp_path: Path) -> None:
    words = [
        "compat", "megatron_ckpt_to_nemo", "--checkpoint_folder", str(run), "--checkpoint_name", "last.ckpt", "--nemo_file_path",
        str(tmp_path / "out.nemo"), "--gpus_per_node", "4", "--tensor_model_parallel_size", str(TP), "--pipeline_model_parallel_size", str(PP),
        "--model_type", "gpt",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as done:
        main(words)
    assert done.value.code == 0
    plan = ckptc.plan(tmp_path / "out.nemo", to="hf", family="llama")
    assert dict(plan.data.source.ranks) == {"tp": TP, "pp": PP}
    plan.run(tmp_path / "hf")
    held = llama.read(tmp_path / "hf")
    assert all(torch.equal(held[name], tensor) for name, tensor in MODEL.tensors().items())


def test_an_output_matrix_that_nemo_did_not_keep_is_missed(run: Path, tmp_path: Path) -> None:
    with pytest.raises(Fault, match="lacks 2 tensors of layout `nemo-interleaved`"):
        ckptc.plan(run / "last.ckpt", to="hf", family="llama", settings={"tie_embeddings": False}).run(tmp_path / "out")


def test_it_is_not_written(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MappingError, match="is read, and not written"):
        ckptc.plan(run / "last.ckpt", to="nemo-interleaved", family="llama")
    with pytest.raises(MappingError, match="no virtual stages"):
        ckptc.plan(run / "last.ckpt", to="nemo-legacy", family="llama", vpp=2, pp=2)
