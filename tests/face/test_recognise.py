"""What is no plain checkpoint of a model is called by its name, with why and what to do, and nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ckptc
from ckptc.demo import write_llama
from ckptc.dsl.diagnostic import MappingError
from ckptc.runtime.fault import Fault

from ..runtime.formats.nemo_files import pack, saved

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 123\n"  # git-lfs, docs/spec.md
Q = "model.layers.0.self_attn.q_proj."


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "hf"
    write_llama(folder)
    return folder


@pytest.fixture
def model(whole: Path, tmp_path: Path) -> Path:
    """A small Llama in one file, and its config."""
    folder = tmp_path / "x"
    folder.mkdir()
    held = {name: tensor for file in whole.glob("*.safetensors") for name, tensor in load_file(file).items()}
    save_file(held, folder / "model.safetensors")
    (folder / "config.json").write_text((whole / "config.json").read_text())
    return folder


def change(folder: Path, without: str = "", **tensors: torch.Tensor) -> None:
    held = load_file(folder / "model.safetensors")
    held.pop(without, None)
    save_file(held | tensors, folder / "model.safetensors")


def say(folder: Path, **keys: Any) -> None:
    said = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(said | keys))


def fault(source: Path, **options: Any) -> Fault:
    with pytest.raises(Fault) as caught:
        ckptc.convert(source, source.parent / "out", to="megatron-legacy", **options)
    assert not (source.parent / "out").exists()
    return caught.value


def bytes_of(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.uint8)


# Names and element types as each quantizer stores them: bitsandbytes functional.py (QuantState.as_dict), AutoGPTQ's and
# AutoAWQ's linear modules, transformers' finegrained_fp8.py and mxfp4.py, compressed-tensors, NVIDIA's Model Optimizer.
SCHEMES: dict[str, tuple[dict[str, torch.Tensor], dict[str, Any], tuple[str, ...]]] = {
    "bitsandbytes 4": ({f"{Q}weight": bytes_of(288, 1), f"{Q}weight.absmax": torch.zeros(9), f"{Q}weight.quant_state.bitsandbytes__nf4": bytes_of(9)}, {}, ("bitsandbytes (4 bit)",)),
    "bitsandbytes 8": ({f"{Q}SCB": torch.zeros(9)}, {"quant_method": "bitsandbytes", "load_in_8bit": True}, ("bitsandbytes (8 bit)",)),
    "GPTQ": ({f"{Q}qweight": torch.zeros(3, 24, dtype=torch.int32), f"{Q}scales": torch.zeros(1, 24), f"{Q}qzeros": torch.zeros(1, 3, dtype=torch.int32)}, {}, ("GPTQ",)),
    "AWQ": ({f"{Q}qweight": torch.zeros(24, 3, dtype=torch.int32), f"{Q}scales": torch.zeros(1, 24), f"{Q}qzeros": torch.zeros(1, 3, dtype=torch.int32)}, {"quant_method": "awq", "bits": 4}, ("with AWQ", "AWQ (4 bit)")),
    "FP8 in blocks": ({f"{Q}weight": torch.zeros(6, 4).to(torch.float8_e4m3fnuz), f"{Q}weight_scale_inv": torch.ones(1, 1)}, {"quant_method": "fp8", "fmt": "e4m3"}, ("FP8 in blocks", "DeepSeek", "FP8 in blocks (e4m3)")),
    "FP8": ({f"{Q}weight": torch.zeros(6, 4).to(torch.float8_e4m3fn), f"{Q}weight_scale": torch.ones(1)}, {"quant_method": "quanto"}, ("FP8", "Quanto")),
    "FP8 alone": ({f"{Q}weight": torch.zeros(6, 4).to(torch.float8_e5m2)}, {}, ("FP8",)),
    "integers alone": ({f"{Q}weight": torch.zeros(6, 4, dtype=torch.int8)}, {}, ("8-bit integers",)),
    "MXFP4": ({"model.layers.0.mlp.experts.down_proj_blocks": bytes_of(2, 3, 5, 16)}, {"quant_method": "mxfp4"}, ("MXFP4", "gpt-oss")),
    "compressed-tensors": ({f"{Q}weight_packed": torch.zeros(6, 4, dtype=torch.int32), f"{Q}weight_shape": torch.zeros(2, dtype=torch.int64)}, {"quant_method": "compressed-tensors", "format": "pack-quantized"}, ("compressed-tensors", "pack-quantized")),
    "NVFP4": ({f"{Q}weight": bytes_of(6, 4), f"{Q}weight_scale_2": torch.ones(1)}, {}, ("NVFP4",)),
    "an unknown method": ({f"{Q}weight_scale": torch.ones(3)}, {"quant_method": "newest"}, ("newest",)),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMES)
def test_quantized_weights_are_called_by_their_scheme(name: str, model: Path) -> None:
    tensors, config, said = SCHEMES[name]
    change(model, f"{Q}weight", **tensors)
    if config:
        say(model, quantization_config=config)
    found = fault(model)
    assert found.code == "quantized-checkpoint"
    text = "\n".join((found.title, *found.notes))
    assert all(part in text for part in said)
    assert "does not decode" in text
    assert found.help
    assert "quantization" not in ckptc.inspect(model)  # looking at it is allowed
    assert ckptc.inspect(model)["tensors"]


def test_a_config_that_says_so_is_believed_though_the_tensors_look_plain(model: Path) -> None:
    say(model, quantization_config={"quant_method": "gptq", "bits": 4})
    found = fault(model)
    assert found.code == "quantized-checkpoint"
    assert "GPTQ (4 bit)" in found.title
    for said in ("x", [], None, {}):
        say(model, quantization_config=said)
        ckptc.plan(model, to="megatron-legacy")


def test_an_adapter_alone_is_called_one(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    save_file({f"{name}A.weight": torch.ones(2, 24), f"{name}B.weight": torch.ones(24, 2)}, folder / "adapter_model.safetensors")
    found = fault(folder)
    assert found.code == "adapter-alone"
    assert "no model" in found.title
    assert "merge_and_unload" in found.help
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    assert fault(folder).code == "adapter-alone"


def test_adapters_of_nemo_are_told_from_the_projector_of_neva(tmp_path: Path) -> None:
    lora = "model.decoder.layers.0.self_attention.adapter_layer.lora_kqv_adapter.linear_in.weight"
    config = {"model_config.yaml": b"hidden_size: 24\n"}
    found = fault(pack(tmp_path / "x.nemo", {**config, "model_weights.ckpt": saved(**{lora: torch.ones(2, 24)})}))
    assert (found.code, "x.nemo" in found.title) == ("adapter-alone", True)
    beside = {lora: torch.ones(2, 24), "model.embedding.word_embeddings.weight": torch.ones(50, 24)}
    assert fault(pack(tmp_path / "x.nemo", {**config, "model_weights.ckpt": saved(**beside)})).code == "adapter-beside"
    neva = {"model.embedding.word_embeddings.adapter_layer.mm_projector_adapter.mm_projector.weight": torch.ones(2, 24)}
    with pytest.raises(MappingError, match="vocab"):  # that of NeVA, whose config is not whole here
        ckptc.plan(pack(tmp_path / "x.nemo", {**config, "model_weights.ckpt": saved(**neva)}), to="hf")


@pytest.mark.parametrize(
    ("target", "tensor", "said"),
    [
        ("nemo.collections.nlp.models.language_modeling.megatron_t5_model.MegatronT5Model", "enc_dec_model.encoder_embedding.word_embeddings.weight", "T5"),
        ("nemo.collections.nlp.models.language_modeling.megatron_bert_model.MegatronBertModel", "model.language_model.x.weight", "BERT"),
        ("nemo.collections.asr.models.EncDecCTCModelBPE", "encoder.pre_encode.out.weight", "speech"),
        ("", "enc_dec_model.encoder_embedding.word_embeddings.weight", "encoder with a decoder"),
    ],
)
def test_models_that_are_no_decoders_are_called_by_their_kind(target: str, tensor: str, said: str, tmp_path: Path) -> None:
    config = f"hidden_size: 24\ntarget: {target}\n".encode()
    found = fault(pack(tmp_path / "x.nemo", {"model_config.yaml": config, "model_weights.ckpt": saved(**{tensor: torch.ones(5, 24)})}))
    assert found.code == "other-model"
    assert said in found.title


def test_metas_own_names_are_recognised(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    torch.save({"tok_embeddings.weight": torch.ones(5, 3), "layers.0.attention.wq.weight": torch.ones(3, 3)}, tmp_path / "x/consolidated.00.pth")
    found = fault(tmp_path / "x")
    assert found.code == "other-names"
    assert "convert_llama_weights_to_hf.py" in found.help


def trained(wrap: Callable[[dict[str, Any]], Any] = lambda held: {"module": held}) -> bytes:
    import io

    buffer = io.BytesIO()
    torch.save(wrap({"model.norm.weight": torch.ones(3)}), buffer)
    return buffer.getvalue()


# DeepSpeed: engine.py (_get_ckpt_name, _get_zero_ckpt_name), pipe/module.py (ckpt_layer_path).
PARTS = {
    "ZeRO-3": (("zero_pp_rank_0_mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"), "zero3-checkpoint", "zero_to_fp32"),
    "ZeRO-2": (("mp_rank_00_model_states.pt", "bf16_zero_pp_rank_1_mp_rank_00_optim_states.pt"), "zero-checkpoint", "zero_to_fp32"),
    "pipeline": (("layer_00-model_00-model_states.pt", "layer_02-model_00-model_states.pt", "mp_rank_00_model_states.pt"), "deepspeed-pipeline", "convert_neox_to_hf"),
    "universal": (("zero/tok.weight/fp32.pt", "zero/tok.weight/exp_avg.pt"), "deepspeed-universal", "trainer"),
}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_deepspeed_are_called_by_their_kind(name: str, tmp_path: Path) -> None:
    files, code, help = PARTS[name]
    for file in files:
        (tmp_path / "x/global_step7" / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "x/global_step7" / file).write_bytes(trained())
    for place in (tmp_path / "x", tmp_path / "x/global_step7"):
        found = fault(place)
        assert found.code == code
        assert help in found.help
        assert files[0 if code != "zero-checkpoint" else 1] in found.notes[1]
    if "/" not in files[0] and code != "zero-checkpoint":
        assert fault(tmp_path / "x/global_step7" / files[0]).code == code


@pytest.mark.parametrize(
    ("file", "said"),
    [("model-Q4_K_M.gguf", "GGUF"), ("onnx/decoder.onnx", "ONNX"), ("flax_model.msgpack", "Flax"), ("tf_model.h5", "TensorFlow"), ("weights.npz", "numpy"), ("rank0.engine", "TensorRT")],
)
def test_other_containers_are_called_by_their_name(file: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "x" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\1" * 40)
    for place in (tmp_path / "x", path):
        found = fault(place)
        assert found.code == "other-container"
        assert said in found.title
        assert found.help


def test_a_gguf_file_under_another_name_is_recognised(tmp_path: Path) -> None:
    for name in ("model.safetensors", "model.bin", "model.whatever"):
        (tmp_path / name).write_bytes(b"GGUF" + b"\3\0\0\0" * 20)
        assert "GGUF" in fault(tmp_path / name).title


@pytest.mark.parametrize("file", ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "x.pt", "x.nemo", "mp_rank_00/model_weights.ckpt"])
def test_a_pointer_of_git_lfs_is_recognised_in_the_place_of_any_file(file: str, tmp_path: Path) -> None:
    path = tmp_path / "x" / file
    path.parent.mkdir(parents=True)
    path.write_bytes(POINTER)
    for place in {path, tmp_path / "x"} - ({tmp_path / "x"} if file == "x.nemo" else {path} if file.endswith("json") else set()):
        found = fault(place)
        assert found.code == "git-lfs-pointer"
        assert "git lfs pull" in found.help


def test_pointers_within_archives_and_distributed_checkpoints_are_recognised(tmp_path: Path) -> None:
    assert fault(pack(tmp_path / "x.nemo", {"model_config.yaml": b"a: 1\n", "model_weights.ckpt": POINTER})).code == "git-lfs-pointer"
    (tmp_path / "d").mkdir()
    (tmp_path / "d/metadata.json").write_text('{"sharded_backend": "torch_dist"}')
    (tmp_path / "d/.metadata").write_bytes(POINTER)
    assert fault(tmp_path / "d").code == "git-lfs-pointer"


def test_a_pointer_beside_the_weights_is_not_carried_along(model: Path) -> None:
    (model / "tokenizer.json").write_bytes(POINTER)
    with pytest.raises((Fault, MappingError), match="git-lfs-pointer"):
        ckptc.convert(model, model.parent / "out", to="hf")
    (model / "config.json").write_bytes(POINTER)
    assert fault(model).code == "git-lfs-pointer"


def test_an_index_says_how_many_of_its_files_are_missing(model: Path) -> None:
    names = list(load_file(model / "model.safetensors"))
    files = {name: f"model-{1 + i % 9:05}-of-00009.safetensors" for i, name in enumerate(names)}
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    (model / "model.safetensors").rename(model / "model-00003-of-00009.safetensors")
    found = fault(model)
    assert found.code == "missing-file"
    assert "model-00001-of-00009.safetensors" in found.title
    assert "8 of the 9 files" in found.notes[0]
    assert found.help


def test_a_mapping_of_ones_own_may_be_of_encoded_weights(model: Path, tmp_path: Path) -> None:
    (tmp_path / "m.ckmap").write_text(
        "model m { axes { a b } w [a, b] }\n"
        'layout one of m { format safetensors "w.weight" = w [a, b] }\n'
        'layout two of m { format safetensors "v.weight" = w [b, a] }\n'
    )
    save_file({"w.weight": torch.arange(15, dtype=torch.int8).reshape(3, 5)}, model / "model.safetensors")
    ckptc.convert(model, tmp_path / "out", to="two", mapping=tmp_path / "m.ckmap", settings={"a": 3, "b": 5})
    assert torch.equal(load_file(tmp_path / "out/model.safetensors")["v.weight"], torch.arange(15, dtype=torch.int8).reshape(3, 5).t())
