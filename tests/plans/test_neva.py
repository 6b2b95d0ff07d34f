"""LLaVA with a whole vision tower to NeMo 1 and back: every size is its own, and plain names say where each tensor goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ckptc
from ckptc import MappingError
from ckptc.runtime.fault import Fault
from tests.held import same

LAYERS, HEADS, DIM, FFN, VOCAB = 2, 4, 6, 34, 46
TOWER_LAYERS, VISION, TOWER_FFN, PATCH, CHANNELS, PLACES = 3, 10, 22, 5, 7, 17
HIDDEN = HEADS * DIM
CONFIG = {
    "model_type": "llava",
    "text_config": {
        "model_type": "llama", "num_hidden_layers": LAYERS, "hidden_size": HIDDEN, "intermediate_size": FFN, "num_attention_heads": HEADS,
        "vocab_size": VOCAB, "rms_norm_eps": 1e-5,
    },
    "vision_config": {"hidden_size": VISION},
}  # fmt: skip

Tensors = dict[str, torch.Tensor]


def tower(prefix: str) -> Tensors:
    """A CLIP vision model's tensors."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.class_embedding": (VISION,), "embeddings.patch_embedding.weight": (VISION, CHANNELS, PATCH, PATCH),
        "embeddings.position_embedding.weight": (PLACES, VISION),
    }  # fmt: skip
    linear = {f"self_attn.{x}_proj": (VISION, VISION) for x in ("q", "k", "v", "out")} | {"mlp.fc1": (TOWER_FFN, VISION), "mlp.fc2": (VISION, TOWER_FFN)}
    norms = ["pre_layrnorm", "post_layernorm"]
    for i in range(TOWER_LAYERS):
        start = f"encoder.layers.{i}."
        norms += [start + "layer_norm1", start + "layer_norm2"]
        for name, shape in linear.items():
            shapes |= {f"{start}{name}.weight": shape, f"{start}{name}.bias": shape[:1]}
    shapes |= {f"{name}.{part}": (VISION,) for name in norms for part in ("weight", "bias")}
    rng = torch.Generator().manual_seed(1)
    return {prefix + name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def made() -> Tensors:
    rng = torch.Generator().manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "language_model.model.embed_tokens.weight": (VOCAB, HIDDEN), "language_model.lm_head.weight": (VOCAB, HIDDEN),
        "language_model.model.norm.weight": (HIDDEN,), "multi_modal_projector.linear_1.weight": (HIDDEN, VISION),
        "multi_modal_projector.linear_2.weight": (HIDDEN, HIDDEN), "multi_modal_projector.linear_1.bias": (HIDDEN,),
        "multi_modal_projector.linear_2.bias": (HIDDEN,),
    }  # fmt: skip
    for i in range(LAYERS):
        start = f"language_model.model.layers.{i}."
        shapes |= {f"{start}self_attn.{x}_proj.weight": (HIDDEN, HIDDEN) for x in "qkvo"}
        shapes |= {f"{start}mlp.{x}_proj.weight": (FFN, HIDDEN) for x in ("gate", "up")} | {f"{start}mlp.down_proj.weight": (HIDDEN, FFN)}
        shapes |= {f"{start}{x}_layernorm.weight": (HIDDEN,) for x in ("input", "post_attention")}
    return {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()} | tower("vision_tower.vision_model.")


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    folder = tmp_path / "hf"
    folder.mkdir()
    save_file(made(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


WORDS = {"nemo": "model.embedding.word_embeddings.", "nemo-legacy": "model.language_model.embedding.word_embeddings."}


@pytest.mark.parametrize("layout", WORDS)
def test_nemo_has_the_tower_only_where_it_is_asked_for(hf: Path, tmp_path: Path, layout: str) -> None:
    ckptc.plan(hf, to=layout, tp=2).run(tmp_path / "without")
    ckptc.plan(hf, to=layout, tp=2, settings={"tower": True}).run(tmp_path / "with")
    for rank in range(2):
        without, all_ = (torch.load(tmp_path / x / f"mp_rank_{rank:02}/model_weights.ckpt", weights_only=True) for x in ("without", "with"))
        assert not any("vision_encoder" in n for n in without)
        assert same({n: t for n, t in all_.items() if "vision_encoder" in n}, tower(WORDS[layout] + "vision_encoder.vision_model."))
        assert same({n: t for n, t in all_.items() if "vision_encoder" not in n}, without)
        adapter = {n.split("mm_projector.")[-1]: t for n, t in without.items() if ".adapter_layer.mm_projector_adapter." in n}
        hf_names = {f"{2 * i}.{part}": made()[f"multi_modal_projector.linear_{i + 1}.{part}"] for i in range(2) for part in ("weight", "bias")}
        assert same(adapter, hf_names)
    ckptc.plan(tmp_path / "with", to="hf", settings={"vocab": VOCAB}).run(tmp_path / "back")
    assert same(load_file(tmp_path / "back/model.safetensors"), made())
    vision = json.loads((tmp_path / "back/config.json").read_text())["vision_config"]
    sizes = {"hidden_size": VISION, "num_hidden_layers": TOWER_LAYERS, "intermediate_size": TOWER_FFN, "patch_size": PATCH}
    assert {k: vision[k] for k in sizes} == sizes


def test_a_repack_keeps_all(hf: Path, tmp_path: Path) -> None:
    ckptc.plan(hf, to="hf").run(tmp_path / "again")
    assert same(load_file(tmp_path / "again/model.safetensors"), made())


def test_a_third_adapter_layer_is_not_dropped(hf: Path) -> None:
    save_file(made() | {"multi_modal_projector.linear_3.weight": torch.ones(HIDDEN, HIDDEN)}, hf / "model.safetensors")
    with pytest.raises((MappingError, Fault), match=r"unknown-tensor(?s:.*)linear_3\.weight"):
        ckptc.plan(hf, to="nemo").run(hf.parent / "out")


def spelled(weights: Tensors, dialect: str, tower_names: str) -> Tensors:
    """HuggingFace's names: published (v4), or of the modules (v5: LlavaModel within LlavaForConditionalGeneration since
    transformers 4.52); the tower's module lost `vision_model.` in transformers 5."""
    out = {n.replace("vision_tower.vision_model.", "vision_tower.") if tower_names == "plain" else n: t for n, t in weights.items()}
    if dialect == "v4":
        return out
    starts = {"language_model.model.": "model.language_model.", "language_model.lm_head": "lm_head", "multi_modal": "model.multi_modal", "vision_tower": "model.vision_tower"}
    return {next(new + n[len(old) :] for old, new in starts.items() if n.startswith(old)): t for n, t in out.items()}


@pytest.mark.parametrize("tower_names", ["nested", "plain"])
@pytest.mark.parametrize("dialect", ["v4", "v5"])
def test_names_of_each_release_are_read_and_written(hf: Path, tmp_path: Path, dialect: str, tower_names: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    save_file(spelled(made(), dialect, tower_names), source / "model.safetensors")
    (source / "config.json").write_text(json.dumps(CONFIG))
    plan = ckptc.plan(source, to="nemo", settings={"tower": True})
    assert dict(plan.data.source.params) == {"class": "lm", "dialect": dialect, "tower_names": tower_names}
    plan.run(tmp_path / "nemo")
    ckptc.plan(tmp_path / "nemo", to="hf", settings={"vocab": VOCAB}).run(tmp_path / "back")
    assert same(load_file(tmp_path / "back/model.safetensors"), made())
    ckptc.plan(hf, to="hf", settings={"dialect": dialect, "tower_names": tower_names}).run(tmp_path / "over")
    assert same(load_file(tmp_path / "over/model.safetensors"), spelled(made(), dialect, tower_names))


def test_the_late_names_are_without_the_towers_module(hf: Path, tmp_path: Path) -> None:
    ckptc.plan(hf, to="hf", settings={"dialect": "v5"}).run(tmp_path / "five")
    assert same(load_file(tmp_path / "five/model.safetensors"), spelled(made(), "v5", "plain"))
