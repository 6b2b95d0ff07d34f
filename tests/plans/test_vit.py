"""ViT between HuggingFace and NeMo 1: every size is its own, and plain torch says what should come out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import ckptc
from ckptc import MappingError
from ckptc.runtime.fault import Fault
from tests.held import same

LAYERS, HEADS, DIM, FFN, PATCH, CHANNELS, GRID, CLASSES = 2, 6, 4, 30, 5, 3, 7, 11
HIDDEN, PLACES = HEADS * DIM, GRID * GRID + 1
CONFIG = {
    "model_type": "vit", "num_hidden_layers": LAYERS, "hidden_size": HIDDEN, "intermediate_size": FFN, "num_attention_heads": HEADS,
    "image_size": PATCH * GRID, "patch_size": PATCH, "num_channels": CHANNELS, "hidden_act": "gelu", "layer_norm_eps": 1e-6,
    "initializer_range": 0.03, "qkv_bias": True, "id2label": {str(i): f"class {i}" for i in range(CLASSES)},
}  # fmt: skip

Tensors = dict[str, torch.Tensor]


def made(seed: int = 0) -> Tensors:
    rng = torch.Generator().manual_seed(seed)
    linear = {"attention.attention.query": (HIDDEN, HIDDEN), "attention.attention.key": (HIDDEN, HIDDEN), "attention.attention.value": (HIDDEN, HIDDEN)}
    linear |= {"attention.output.dense": (HIDDEN, HIDDEN), "intermediate.dense": (FFN, HIDDEN), "output.dense": (HIDDEN, FFN)}
    shapes: dict[str, tuple[int, ...]] = {
        "vit.embeddings.cls_token": (1, 1, HIDDEN), "vit.embeddings.position_embeddings": (1, PLACES, HIDDEN),
        "vit.embeddings.patch_embeddings.projection.weight": (HIDDEN, CHANNELS, PATCH, PATCH),
        "vit.embeddings.patch_embeddings.projection.bias": (HIDDEN,), "classifier.weight": (CLASSES, HIDDEN), "classifier.bias": (CLASSES,),
    }  # fmt: skip
    norms = ["vit.layernorm"]
    for i in range(LAYERS):
        start = f"vit.encoder.layer.{i}."
        norms += [start + "layernorm_before", start + "layernorm_after"]
        for name, shape in linear.items():
            shapes |= {f"{start}{name}.weight": shape, f"{start}{name}.bias": shape[:1]}
    shapes |= {f"{name}.{part}": (HIDDEN,) for name in norms for part in ("weight", "bias")}
    return {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def in_nemo(hf: Tensors) -> Tensors:
    """What NeMo holds on one rank, by its own forward: patches (row, column, channel), heads (query, key, value)."""
    backbone = "model.backbone."
    patch = hf["vit.embeddings.patch_embeddings.projection.weight"]
    out = {
        backbone + "cls_token": hf["vit.embeddings.cls_token"],
        backbone + "position_embeddings.weight": hf["vit.embeddings.position_embeddings"][0],
        backbone + "linear_encoder.weight": patch.permute(0, 2, 3, 1).reshape(HIDDEN, -1),
        backbone + "linear_encoder.bias": hf["vit.embeddings.patch_embeddings.projection.bias"],
    }
    same = {"attention.output.dense": "self_attention.dense", "intermediate.dense": "mlp.dense_h_to_4h", "output.dense": "mlp.dense_4h_to_h"}
    same |= {"layernorm_before": "input_layernorm", "layernorm_after": "post_attention_layernorm"}
    for part in ("weight", "bias"):
        out[f"{backbone}transformer.final_layernorm.{part}"] = hf[f"vit.layernorm.{part}"]
        out[f"model.head.{part}"] = hf[f"classifier.{part}"]
        for i in range(LAYERS):
            theirs, ours = f"vit.encoder.layer.{i}.", f"{backbone}transformer.layers.{i}."
            out |= {f"{ours}{b}.{part}": hf[f"{theirs}{a}.{part}"] for a, b in same.items()}
            rows = [hf[f"{theirs}attention.attention.{x}.{part}"].reshape(HEADS, DIM, -1) for x in ("query", "key", "value")]
            joined = torch.stack(rows, 1).reshape(3 * HIDDEN, -1)
            out[f"{ours}self_attention.query_key_value.{part}"] = joined if part == "weight" else joined[:, 0]
    return out


def on_rank(name: str, whole: torch.Tensor, rank: int, tp: int) -> torch.Tensor:
    if "query_key_value" in name or ("h_to_4h" in name and "4h_to_h" not in name):
        return whole.chunk(tp)[rank]
    if name.endswith(("self_attention.dense.weight", "dense_4h_to_h.weight")):
        return whole.chunk(tp, 1)[rank]
    return whole


def read(path: Path) -> Tensors:
    return torch.load(path, weights_only=True)


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    folder = tmp_path / "hf"
    folder.mkdir()
    save_file(made(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


def nemo(tmp_path: Path, tensors: Tensors, **config: Any) -> Path:
    folder = tmp_path / "nemo"
    folder.mkdir()
    torch.save(tensors, folder / "model_weights.ckpt")
    base = {
        "num_layers": LAYERS, "hidden_size": HIDDEN, "ffn_hidden_size": FFN, "num_attention_heads": HEADS, "class_token_length": 1,
        "patch_dim": PATCH, "num_channels": CHANNELS, "img_h": PATCH * GRID, "img_w": PATCH * GRID, "num_classes": CLASSES,
    }  # fmt: skip
    (folder / "model_config.yaml").write_text(yaml.safe_dump(base | config))
    return folder


@pytest.mark.parametrize("tp", [1, 2, 3])
def test_to_nemo_and_back(hf: Path, tmp_path: Path, tp: int) -> None:
    ckptc.plan(hf, to="nemo", tp=tp).run(tmp_path / "nemo")
    whole = in_nemo(made())
    for rank in range(tp):
        file = "model_weights.ckpt" if tp == 1 else f"mp_rank_{rank:02}/model_weights.ckpt"
        assert same(read(tmp_path / "nemo" / file), {n: on_rank(n, t, rank, tp) for n, t in whole.items()})
    ckptc.plan(tmp_path / "nemo", to="hf").run(tmp_path / "back")
    assert same(load_file(tmp_path / "back/model.safetensors"), made())
    back = json.loads((tmp_path / "back/config.json").read_text())
    assert {k: back.get(k) for k in CONFIG if k != "id2label"} == {k: v for k, v in CONFIG.items() if k != "id2label"}
    assert back["num_labels"] == CLASSES


def test_the_result_computes_the_same_patches(hf: Path, tmp_path: Path) -> None:
    ckptc.plan(hf, to="nemo").run(tmp_path / "nemo")
    held, weights = made(), read(tmp_path / "nemo/model_weights.ckpt")
    image = torch.randn(2, CHANNELS, PATCH * GRID, PATCH * GRID, dtype=torch.float64)
    weight = held["vit.embeddings.patch_embeddings.projection.weight"].double()
    theirs = torch.nn.functional.conv2d(image, weight, stride=PATCH).flatten(2).transpose(1, 2)
    cut = image.reshape(2, CHANNELS, GRID, PATCH, GRID, PATCH).permute(0, 2, 4, 3, 5, 1).reshape(2, GRID * GRID, -1)
    assert torch.allclose(cut @ weights["model.backbone.linear_encoder.weight"].double().T, theirs)


def test_the_configuration_says_what_the_tensors_are(hf: Path, tmp_path: Path) -> None:
    ckptc.plan(hf, to="nemo", tp=2).run(tmp_path / "nemo")
    config = yaml.safe_load((tmp_path / "nemo/model_config.yaml").read_text())
    wanted = {
        "class_token_length": 1, "patch_dim": PATCH, "num_channels": CHANNELS, "img_h": PATCH * GRID, "img_w": PATCH * GRID,
        "num_classes": CLASSES, "layernorm_epsilon": 1e-6, "init_method_std": 0.03, "tensor_model_parallel_size": 2,
        "encoder_seq_length": GRID * GRID, "megatron_legacy": False, "preprocess_layernorm": False, "layerscale": False,
    }  # fmt: skip
    assert {k: config.get(k) for k in wanted} == wanted


def with_class_tokens(tensors: Tensors, count: int) -> Tensors:
    more = {"model.backbone.cls_token": torch.ones(1, count, HIDDEN), "model.backbone.position_embeddings.weight": torch.ones(PLACES - 1 + count, HIDDEN)}
    return tensors | more


def with_deep_head(tensors: Tensors) -> Tensors:
    tensors = dict(tensors)
    out = {f"model.head.dense_out.{p}": tensors.pop(f"model.head.{p}") for p in ("weight", "bias")}
    return tensors | out | {"model.head.dense_in.weight": torch.ones(HIDDEN, HIDDEN), "model.head.dense_in.bias": torch.ones(HIDDEN)}


def test_what_huggingface_cannot_hold_is_refused(tmp_path: Path) -> None:
    plain = in_nemo(made())
    norm = {f"model.backbone.preprocess_layernorm.{p}": torch.ones(HIDDEN) for p in ("weight", "bias")}
    cases: list[tuple[str, Tensors, dict[str, Any]]] = [
        ("one class token", with_class_tokens(plain, 8), {"class_token_length": 8}),
        ("no head of two layers", with_deep_head(plain), {}),
        ("neither a norm before", plain | norm, {"preprocess_layernorm": True}),
    ]
    for i, (fault, tensors, config) in enumerate(cases):
        place = tmp_path / str(i)
        place.mkdir()
        source = nemo(place, tensors, **config)
        with pytest.raises((MappingError, Fault), match=fault):
            ckptc.plan(source, to="hf")
        ckptc.plan(source, to="nemo", tp=2).run(place / "two")
        ckptc.plan(place / "two", to="nemo", tp=1).run(place / "one")
        assert same(read(place / "one/model_weights.ckpt"), tensors)


def test_a_tp_that_cuts_heads_is_refused(hf: Path) -> None:
    with pytest.raises((MappingError, Fault), match="a part of a head"):
        ckptc.plan(hf, to="nemo", tp=4)


def test_an_activation_that_nemo_has_not_is_refused(hf: Path) -> None:
    (hf / "config.json").write_text(json.dumps(CONFIG | {"hidden_act": "quick_gelu"}))
    with pytest.raises((MappingError, Fault), match="no activation of this kind"):
        ckptc.plan(hf, to="nemo")


def test_positions_that_are_a_bare_parameter_stay_so(tmp_path: Path) -> None:
    tensors = in_nemo(made())
    tensors["model.backbone.position_embeddings"] = tensors.pop("model.backbone.position_embeddings.weight")
    source = nemo(tmp_path, tensors, position_embedding_type="learned_parameters")
    ckptc.plan(source, to="nemo", tp=2).run(tmp_path / "two")
    assert "model.backbone.position_embeddings" in read(tmp_path / "two/mp_rank_01/model_weights.ckpt")
    ckptc.plan(source, to="hf").run(tmp_path / "back")
    assert same(load_file(tmp_path / "back/model.safetensors"), made())
