"""The names that HuggingFace's files have beside the usual ones: those of transformers 5, and those of base classes.

Names and shapes are what transformers 5.24 wrote for small models of its own classes, by itself (`v4`: core_model_loading
turns its modules' names back, conversion_mapping.py) and with `save_original_format=False` (`v5`).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ckptc
from tests.held import counted, read, read_files, same
from tests.made_deepseek import huggingface

from .test_megatron_families import (
    EXPERTS,
    FAMILIES,
    HIDDEN,
    NEOX,
    PLACES,
    VOCAB,
    Weights,
    account,
    saved,
)

MOE = ["mixtral", "qwen2_moe", "qwen3_moe"]


def fused(hf: Weights) -> Weights:
    """transformers 5's own names: experts.gate_up_proj [experts, 2 ffn, hidden], experts.down_proj [experts, hidden, ffn]."""
    mixtral = any("block_sparse_moe" in n for n in hf)
    at, gate, up, down = ("block_sparse_moe.experts", "w1", "w3", "w2") if mixtral else ("mlp.experts", "gate_proj", "up_proj", "down_proj")
    out = {n.replace("block_sparse_moe.gate", "mlp.gate"): x for n, x in hf.items() if ".experts." not in n}
    count = 1 + max(int(m[1]) for n in hf if (m := re.search(r"\.experts\.(\d+)\.", n)))
    for layer in dict.fromkeys(n[: n.index(at)] for n in hf if at + "." in n):
        of = {w: [hf[f"{layer}{at}.{e}.{w}.weight"] for e in range(count)] for w in (gate, up, down)}
        out[f"{layer}mlp.experts.gate_up_proj"] = torch.stack([torch.cat(pair) for pair in zip(of[gate], of[up], strict=True)])
        out[f"{layer}mlp.experts.down_proj"] = torch.stack(of[down])
    return out


@pytest.mark.parametrize("family", MOE)
def test_experts_in_one_tensor_are_read_and_written(family: str, tmp_path: Path) -> None:
    shapes, keys = FAMILIES[family]
    hf = counted(shapes)
    old, new = saved(tmp_path / "old", family, hf, keys), saved(tmp_path / "new", family, fused(hf), keys)
    assert dict(ckptc.plan(new, to="megatron").data.source.params)["dialect"] == "v5"
    ckptc.convert(new, tmp_path / "dist", to="megatron")
    assert same(read(tmp_path / "dist"), account(hf))
    ckptc.convert(tmp_path / "dist", tmp_path / "five", to="hf", config=new / "config.json", settings={"dialect": "v5"})
    assert same(load_file(tmp_path / "five/model.safetensors"), fused(hf))
    ckptc.convert(tmp_path / "dist", tmp_path / "four", to="hf", config=new / "config.json")
    assert same(load_file(tmp_path / "four/model.safetensors"), hf)
    ckptc.convert(old, tmp_path / "over", to="hf", settings={"dialect": "v5"})
    assert same(load_file(tmp_path / "over/model.safetensors"), fused(hf))


@pytest.mark.parametrize("family", MOE)
def test_a_repack_keeps_the_names(family: str, tmp_path: Path) -> None:
    shapes, keys = FAMILIES[family]
    new = saved(tmp_path / "new", family, fused(counted(shapes)), keys)
    ckptc.convert(new, tmp_path / "again", to="hf", format="bin")
    assert same(read(tmp_path / "again"), read(new))
    ckptc.convert(new, tmp_path / "four", to="hf", settings={"dialect": "v4"})
    assert same(read(tmp_path / "four"), counted(shapes))


def test_deepseeks_experts_in_one_tensor(tmp_path: Path) -> None:
    """Layers with experts follow dense ones."""
    huggingface(tmp_path / "hf")
    hf = load_file(tmp_path / "hf/model.safetensors")
    ckptc.convert(tmp_path / "hf", tmp_path / "five", to="hf", settings={"dialect": "v5"})
    found = load_file(tmp_path / "five/model.safetensors")
    assert same(found, fused(hf))
    ckptc.convert(tmp_path / "five", tmp_path / "back", to="hf", settings={"dialect": "v4"})
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)


GPT2 = {"n_layer": 2, "n_embd": 24, "n_head": 3, "n_positions": PLACES, "vocab_size": VOCAB, "model_type": "gpt2"}


def gpt2() -> Weights:
    each = {
        "ln_1.weight": (24,), "ln_1.bias": (24,), "attn.c_attn.weight": (24, 72), "attn.c_attn.bias": (72,), "attn.c_proj.weight": (24, 24),
        "attn.c_proj.bias": (24,), "ln_2.weight": (24,), "ln_2.bias": (24,), "mlp.c_fc.weight": (24, 96), "mlp.c_fc.bias": (96,),
        "mlp.c_proj.weight": (96, 24), "mlp.c_proj.bias": (24,),
    }  # fmt: skip
    ends = {"wte.weight": (VOCAB, 24), "wpe.weight": (PLACES, 24), "ln_f.weight": (24,), "ln_f.bias": (24,)}
    return counted(ends | {f"h.{i}.{n}": shape for i in range(2) for n, shape in each.items()})


def folder(place: Path, weights: Weights, config: dict[str, Any]) -> Path:
    place.mkdir()
    save_file(weights, place / "model.safetensors")
    (place / "config.json").write_text(json.dumps(config))
    return place


def test_the_hubs_gpt2_is_read_without_prefix_and_with_masks(tmp_path: Path) -> None:
    """GPT2Model (base_model_prefix "transformer", modeling_gpt2.py) and the buffers that it once had."""
    plain = gpt2()
    masks = {f"h.{i}.attn.bias": torch.ones(1, 1, PLACES, PLACES).tril() for i in range(2)} | {f"h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(2)}
    source = folder(tmp_path / "hub", plain | masks, GPT2)
    prefixed = {f"transformer.{n}": x for n, x in plain.items()}
    usual = folder(tmp_path / "usual", prefixed, GPT2)
    for name, place in (("a", source), ("b", usual)):
        ckptc.convert(place, tmp_path / name, to="megatron-legacy", tp=3, settings={"pad_vocab_to": 1})
    assert same(read_files(tmp_path / "a"), read_files(tmp_path / "b"))
    ckptc.convert(tmp_path / "a", tmp_path / "back", to="hf", config=source / "config.json")
    assert same(load_file(tmp_path / "back/model.safetensors"), prefixed)
    ckptc.convert(tmp_path / "a", tmp_path / "base", to="hf", config=source / "config.json", settings={"class": "base"})
    assert same(load_file(tmp_path / "base/model.safetensors"), plain)


def test_gpt2_ties_its_output_where_the_config_says_nothing(tmp_path: Path) -> None:
    """GPT2Config.tie_word_embeddings is true by default. A file may have the matrix all the same."""
    prefixed = {f"transformer.{n}": x for n, x in gpt2().items()}
    twice = folder(tmp_path / "twice", prefixed | {"lm_head.weight": prefixed["transformer.wte.weight"].clone()}, GPT2)
    ckptc.convert(twice, tmp_path / "out", to="megatron")
    assert "output_layer.weight" not in read(tmp_path / "out")
    other = folder(tmp_path / "other", prefixed | {"lm_head.weight": prefixed["transformer.wte.weight"] + 1}, GPT2)
    with pytest.raises(ckptc.Fault, match="lm_head"):
        ckptc.convert(other, tmp_path / "wrong", to="megatron")


BASES = {"llama": "model.", "mistral": "model.", "qwen2": "model.", "qwen3": "model.", "mixtral": "model.", "qwen3_moe": "model.", "qwen2_moe": "model.", "nemotron": "model.", "gpt_neox": "gpt_neox."}


@pytest.mark.parametrize("family", BASES)
def test_files_of_a_base_class_are_read_where_the_output_is_tied(family: str, tmp_path: Path) -> None:
    """base_model_prefix of each modeling file in transformers 5.24."""
    shapes, keys = FAMILIES.get(family, (NEOX, {"num_attention_heads": 4, "use_parallel_residual": False}))
    hf = {n: x for n, x in counted(shapes).items() if n not in ("lm_head.weight", "embed_out.weight")}
    base = {n.removeprefix(BASES[family]): x for n, x in hf.items()}
    source = saved(tmp_path / "base", family, base, {**keys, "tie_word_embeddings": True})
    ckptc.convert(source, tmp_path / "out", to="megatron")
    ckptc.convert(tmp_path / "out", tmp_path / "back", to="hf", config=source / "config.json")
    assert same(load_file(tmp_path / "back/model.safetensors"), hf)
    ckptc.convert(source, tmp_path / "again", to="hf")
    assert same(load_file(tmp_path / "again/model.safetensors"), base)
    untied = saved(tmp_path / "untied", family, base, keys)
    with pytest.raises(ckptc.MappingError, match="base class alone have no output matrix"):
        ckptc.plan(untied, to="megatron")


@pytest.mark.parametrize("family", MOE)
def test_a_base_class_may_have_its_experts_in_one_tensor(family: str, tmp_path: Path) -> None:
    shapes, keys = FAMILIES[family]
    whole = {n: x for n, x in counted(shapes).items() if n != "lm_head.weight"}
    source = saved(tmp_path / "base", family, {n.removeprefix("model."): x for n, x in fused(whole).items()}, {**keys, "tie_word_embeddings": True})
    ckptc.convert(source, tmp_path / "back", to="hf", settings={"dialect": "v4", "class": "lm"})
    assert same(load_file(tmp_path / "back/model.safetensors"), whole)


def test_dbrx_base_class(tmp_path: Path) -> None:
    """Its experts are in one tensor in every release; the config says that it is never tied (DbrxConfig), so nothing is lost
    silently."""
    config = {"model_type": "dbrx", "vocab_size": VOCAB, "n_layers": 1, "d_model": HIDDEN, "n_heads": 8, "ffn_config": {"ffn_hidden_size": 6, "moe_num_experts": EXPERTS}, "attn_config": {"kv_n_heads": 4}}
    rows = HIDDEN + 2 * 4 * (HIDDEN // 8)
    each = {
        "norm_attn_norm.norm_1.weight": (HIDDEN,), "norm_attn_norm.norm_2.weight": (HIDDEN,), "norm_attn_norm.attn.Wqkv.weight": (rows, HIDDEN),
        "norm_attn_norm.attn.out_proj.weight": (HIDDEN, HIDDEN), "ffn.router.layer.weight": (EXPERTS, HIDDEN),
        **{f"ffn.experts.mlp.{w}": (EXPERTS * 6, HIDDEN) for w in ("w1", "v1", "w2")},
    }  # fmt: skip
    base = counted({"wte.weight": (VOCAB, HIDDEN), "norm_f.weight": (HIDDEN,)} | {f"blocks.0.{n}": s for n, s in each.items()})
    with pytest.raises(ckptc.MappingError, match="base class alone have no output matrix"):
        ckptc.plan(folder(tmp_path / "base", base, config), to="nxdt")


