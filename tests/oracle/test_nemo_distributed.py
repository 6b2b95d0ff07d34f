"""NeMo 1's distributed checkpoints, as Megatron-core wrote them: read, packed, and converted to NeMo 2 and to HuggingFace."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
import yaml
from safetensors.torch import load_file

import ckptc

from .nemo_cases import Case, contents

CASES = {"torch_dist": Case("distckpt_torchdist_core09_tp2_bf16"), "zarr": Case("distckpt_zarr_core05_tp2_fp32")}
LAYERS, HIDDEN, FFN, HEADS, GROUPS, DIM = 4, 16, 24, 4, 2, 4
TOKENIZER = "0123456789abcdef0123456789abcdef_tokenizer.model"
CONFIG: dict[str, Any] = {
    "mcore_gpt": True, "num_layers": LAYERS, "hidden_size": HIDDEN, "ffn_hidden_size": FFN, "num_attention_heads": HEADS,
    "num_query_groups": GROUPS, "encoder_seq_length": 71, "max_position_embeddings": 71, "bias": False, "normalization": "rmsnorm",
    "activation": "fast-swiglu", "position_embedding_type": "rope", "rotary_base": 54321.0, "share_embeddings_and_output_weights": False,
    "make_vocab_size_divisible_by": 8, "tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 1,
    "tokenizer": {"library": "sentencepiece", "type": None, "model": f"nemo:{TOKENIZER}", "sentencepiece_legacy": True},
}  # fmt: skip
pytestmark = pytest.mark.skipif(not CASES["zarr"].folder.is_dir(), reason="there is no shared/oracle/nemo here")


def unpacked(folder: Path, format: str) -> Path:
    """What an archive of the case unpacks to."""
    folder.mkdir()
    for file in (CASES[format].folder / "model_weights").rglob("*"):
        if file.is_file():
            place = folder / "model_weights" / file.relative_to(CASES[format].folder / "model_weights")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
    (folder / "model_config.yaml").write_text(yaml.safe_dump(CONFIG))
    (folder / TOKENIZER).write_bytes(b"pieces")
    return folder


def source(tmp_path: Path, format: str, kind: str) -> Path:
    """The case as a folder, as the folder of weights in it, or as an archive."""
    folder = unpacked(tmp_path / "it", format)
    if kind == "weights":
        return folder / "model_weights"
    if kind == "folder":
        return folder
    with tarfile.open(tmp_path / "it.nemo", "w:") as tar:
        tar.add(folder, ".")
    shutil.rmtree(folder)
    return tmp_path / "it.nemo"


def stored(format: str) -> dict[str, torch.Tensor]:
    return {tensor.name: tensor.read() for tensor in ckptc.open(CASES[format].folder / "model_weights")}


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors that torch.distributed.checkpoint reads in the folder."""
    sizes = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    state = {name: torch.empty(it.size, dtype=it.properties.dtype) for name, it in sizes.items() if hasattr(it, "size")}
    dcp.load(state, storage_reader=dcp.FileSystemReader(folder), no_dist=True)
    return state


def huggingface(held: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same model under HuggingFace's names, by plain slices."""
    out = {
        "model.embed_tokens.weight": held["model.embedding.word_embeddings.weight"],
        "lm_head.weight": held["model.output_layer.weight"],
        "model.norm.weight": held["model.decoder.final_layernorm.weight"],
    }
    each = HEADS // GROUPS
    for i in range(LAYERS):
        layer = {name.removeprefix("model.decoder.layers."): tensor[i] for name, tensor in held.items() if ".layers." in name}
        qkv = layer["self_attention.linear_qkv.weight"].view(GROUPS, each + 2, DIM, HIDDEN)
        at = f"model.layers.{i}."
        out |= {
            f"{at}self_attn.q_proj.weight": qkv[:, :each].reshape(-1, HIDDEN),
            f"{at}self_attn.k_proj.weight": qkv[:, each].reshape(-1, HIDDEN),
            f"{at}self_attn.v_proj.weight": qkv[:, each + 1].reshape(-1, HIDDEN),
            f"{at}self_attn.o_proj.weight": layer["self_attention.linear_proj.weight"],
            f"{at}mlp.gate_proj.weight": layer["mlp.linear_fc1.weight"][:FFN],
            f"{at}mlp.up_proj.weight": layer["mlp.linear_fc1.weight"][FFN:],
            f"{at}mlp.down_proj.weight": layer["mlp.linear_fc2.weight"],
            f"{at}input_layernorm.weight": layer["self_attention.linear_qkv.layer_norm_weight"],
            f"{at}post_attention_layernorm.weight": layer["mlp.linear_fc1.layer_norm_weight"],
        }
    return out


def check_equal(got: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert got.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert got[name].dtype == tensor.dtype
        assert torch.equal(got[name], tensor), name


@pytest.mark.parametrize("kind", ["archive", "folder", "weights"])
@pytest.mark.parametrize("format", CASES)
def test_every_tensor_is_read_with_config_and_artifacts(tmp_path: Path, format: str, kind: str) -> None:
    place = source(tmp_path, format, kind)
    checkpoint = ckptc.open(place)
    assert (checkpoint.format, checkpoint.archive) == (format, kind == "archive")
    wanted = {t["name"]: (tuple(t["shape"]), t["dtype"], t["sha256"]) for t in CASES[format].spec["tensors"]}
    assert {name: held for (_, name), held in contents(place).items()} == wanted
    assert checkpoint.config("model_config.yaml") == CONFIG
    assert checkpoint.artifacts() == (TOKENIZER,)
    assert checkpoint.artifact("tokenizer.model") == b"pieces"


@pytest.mark.parametrize("kind", ["archive", "folder", "weights"])
@pytest.mark.parametrize("format", CASES)
def test_torch_reads_the_same_tensors_from_nemo_2(tmp_path: Path, format: str, kind: str) -> None:
    place = source(tmp_path, format, kind)
    ckptc.convert(place, tmp_path / "out", to="nemo2")
    held = stored(format)
    check_equal(loaded(tmp_path / "out" / "weights"), {name.replace("model.", "module.", 1): tensor for name, tensor in held.items()})
    assert (tmp_path / "out/context/tokenizer.model").read_bytes() == b"pieces"
    model = yaml.safe_load((tmp_path / "out/context/model.yaml").read_text())
    assert model["_target_"] == "nemo.collections.llm.gpt.model.llama.LlamaModel"
    assert model["tokenizer"] == {
        "_target_": "nemo.collections.common.tokenizers.sentencepiece_tokenizer.SentencePieceTokenizer", "legacy": True, "model_path": "tokenizer.model",
    }  # fmt: skip
    dtype = "bfloat16" if format == "torch_dist" else "float32"
    assert model["config"]["params_dtype"]["_target_"] == f"torch.{dtype}"
    assert {key: model["config"][key] for key in ("num_layers", "rotary_base", "seq_length", "bf16")} == {
        "num_layers": LAYERS, "rotary_base": 54321, "seq_length": 71, "bf16": dtype == "bfloat16",
    }  # fmt: skip


@pytest.mark.parametrize("format", CASES)
def test_nemo_2_and_nemo_1_become_huggingfaces(tmp_path: Path, format: str) -> None:
    place, wanted = source(tmp_path, format, "archive"), huggingface(stored(format))
    ckptc.convert(place, tmp_path / "nemo2", to="nemo2", format="zarr" if format == "torch_dist" else "torch_dist")
    for number, each in enumerate((place, tmp_path / "nemo2", tmp_path / "nemo2/weights")):
        out = tmp_path / f"hf{number}"
        ckptc.convert(each, out, to="hf")
        check_equal(load_file(out / "model.safetensors"), wanted)
        assert (out / "tokenizer.model").read_bytes() == b"pieces"
        config = yaml.safe_load((out / "config.json").read_text())
        assert {key: config[key] for key in ("model_type", "num_key_value_heads", "rope_theta", "max_position_embeddings", "vocab_size")} == {
            "model_type": "llama", "num_key_value_heads": GROUPS, "rope_theta": 54321, "max_position_embeddings": 71, "vocab_size": 40,
        }  # fmt: skip


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("format", CASES)
def test_the_other_format_holds_the_same(tmp_path: Path, format: str, packed: bool) -> None:
    place, other = source(tmp_path, format, "archive"), "zarr" if format == "torch_dist" else "torch_dist"
    out = tmp_path / ("out.nemo" if packed else "out")
    ckptc.convert(place, out, to="nemo-dist", format=other)
    checkpoint = ckptc.open(out)
    assert (checkpoint.format, checkpoint.archive) == (other, packed)
    check_equal({tensor.name: tensor.read() for tensor in checkpoint}, stored(format))
    assert checkpoint.config("model_config.yaml") == {**CONFIG, "dist_ckpt_format": other}
    assert checkpoint.artifacts() == (TOKENIZER,)
    ckptc.convert(out, tmp_path / "back", to="nemo-dist", format=format)
    if format == "torch_dist":
        check_equal(loaded(tmp_path / "back/model_weights"), stored(format))


@pytest.mark.parametrize("to", ["nemo2", "megatron", "nemo-dist"])
def test_nemo_2_is_renamed(tmp_path: Path, to: str) -> None:
    ckptc.convert(source(tmp_path, "torch_dist", "folder"), tmp_path / "nemo2", to="nemo2")
    ckptc.convert(tmp_path / "nemo2", tmp_path / "out", to=to)
    folder, prefix = {"nemo2": ("weights", "module."), "megatron": ("release", ""), "nemo-dist": ("model_weights", "model.")}[to]
    check_equal(loaded(tmp_path / "out" / folder), {name.replace("model.", prefix, 1): tensor for name, tensor in stored("torch_dist").items()})
    if to == "nemo2":
        for name in ("io.json", "model.yaml", "tokenizer.model"):
            assert (tmp_path / "out/context" / name).read_bytes() == (tmp_path / "nemo2/context" / name).read_bytes()


def test_a_folder_of_weights_beside_another_checkpoint_is_read_itself(tmp_path: Path) -> None:
    """The folder around it holds NeMo 2's weights as well: what was named is what is read."""
    place = source(tmp_path, "zarr", "weights")
    ckptc.convert(place, tmp_path / "nemo2", to="nemo2")
    shutil.copytree(tmp_path / "nemo2/weights", place.parent / "weights")
    assert {tensor.name for tensor in ckptc.open(place)} == stored("zarr").keys()


def test_settings_in_what_a_run_saved_beside_its_tensors(tmp_path: Path) -> None:
    folder = unpacked(tmp_path / "it", "zarr") / "model_weights"
    run = tmp_path / "step=7"
    folder.rename(run)
    torch.save({"hyper_parameters": {"cfg": CONFIG}, "pytorch-lightning_version": "2.2.1"}, run / "common.pt")
    checkpoint = ckptc.open(run)
    assert checkpoint.config("model_config.yaml") == CONFIG
    ckptc.convert(run, tmp_path / "out", to="hf")
    check_equal(load_file(tmp_path / "out/model.safetensors"), huggingface(stored("zarr")))
