"""GPT-BigCode: its joined tensor is that of Megatron-core as it stands, with one key/value head for all or one for each
(transformers, modeling_gpt_bigcode.py: `self.c_attn(hidden_states)` is split at the query's rows, or viewed by heads)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ckptc

LAYERS, HIDDEN, FFN, HEADS, VOCAB, PLACES = 3, 40, 36, 5, 31, 13
DIM = HIDDEN // HEADS
LINEAR = {"attn.c_proj": (HIDDEN, HIDDEN), "mlp.c_fc": (FFN, HIDDEN), "mlp.c_proj": (HIDDEN, FFN)}
THEIRS = {
    "ln_1.": "self_attention.linear_qkv.layer_norm_", "attn.c_attn.": "self_attention.linear_qkv.", "attn.c_proj.": "self_attention.linear_proj.",
    "ln_2.": "mlp.linear_fc1.layer_norm_", "mlp.c_fc.": "mlp.linear_fc1.", "mlp.c_proj.": "mlp.linear_fc2.",
}  # fmt: skip


@pytest.mark.parametrize("one", [True, False])
def test_its_joined_heads_are_megatrons(one: bool, tmp_path: Path) -> None:
    rows = HIDDEN + 2 * DIM if one else 3 * HIDDEN
    shapes = {f"{name}.{kind}": shape if kind == "weight" else shape[:1] for name, shape in (LINEAR | {"attn.c_attn": (rows, HIDDEN)}).items() for kind in ("weight", "bias")}
    shapes |= {f"{name}.{kind}": (HIDDEN,) for name in ("ln_1", "ln_2") for kind in ("weight", "bias")}
    hf = {f"transformer.h.{i}.{name}": torch.randn(shape) for i in range(LAYERS) for name, shape in shapes.items()}
    hf |= {"transformer.wte.weight": torch.randn(VOCAB, HIDDEN), "transformer.wpe.weight": torch.randn(PLACES, HIDDEN)}
    hf |= {f"transformer.ln_f.{kind}": torch.randn(HIDDEN) for kind in ("weight", "bias")}
    (tmp_path / "hf").mkdir()
    save_file(hf, tmp_path / "hf/model.safetensors")
    keys = {"model_type": "gpt_bigcode", "n_layer": LAYERS, "n_embd": HIDDEN, "n_inner": FFN, "n_head": HEADS, "n_positions": PLACES, "vocab_size": VOCAB, "multi_query": one}
    (tmp_path / "hf/config.json").write_text(json.dumps(keys))
    ckptc.convert(tmp_path / "hf", tmp_path / "out", to="megatron")
    found = {tensor.name: tensor.read() for tensor in ckptc.open(tmp_path / "out")}
    for name in shapes:
        start = next(start for start in THEIRS if name.startswith(start))
        wanted = torch.stack([hf[f"transformer.h.{i}.{name}"] for i in range(LAYERS)])
        assert torch.equal(found[f"decoder.layers.{THEIRS[start]}{name.removeprefix(start)}"], wanted), name
    ckptc.convert(tmp_path / "hf", tmp_path / "nemo", to="nemo")
    ckptc.convert(tmp_path / "nemo", tmp_path / "back", to="hf", family="gpt_bigcode", settings={"vocab": VOCAB})
    back = load_file(tmp_path / "back/model.safetensors")
    assert back.keys() == hf.keys()
    assert all(torch.equal(back[name], x) for name, x in hf.items())
    said = json.loads((tmp_path / "back/config.json").read_text())
    assert (said["n_head"], said["multi_query"]) == (HEADS, one)
