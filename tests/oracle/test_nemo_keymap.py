"""NeMo's own modules to Megatron-core's and back: each tensor under the name that the framework's converter gives it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import ckptc

from .nemo_cases import ORACLE

if not ORACLE.is_dir():
    pytest.skip(f"no oracle data at {ORACLE}", allow_module_level=True)

CASES: dict[str, dict[str, Any]] = json.loads((ORACLE / "legacy_gpt_to_mcore_keymap/expected.json").read_text())
HIDDEN, HEADS, FFN, VOCAB, PLACES = 24, 6, 40, 30, 17
FREQUENCIES = "model.rotary_pos_emb.inv_freq"  # in the framework's table; a model of Megatron-core's does not keep them
ROWS = {
    "query_key_value": (3 * HIDDEN, HIDDEN), "dense_4h_to_h": (HIDDEN, FFN), "self_attention.dense": (HIDDEN, HIDDEN), "output_layer": (VOCAB, HIDDEN),
    "word_embeddings": (VOCAB, HIDDEN), "position_embeddings": (PLACES, HIDDEN), "inv_freq": (HIDDEN // HEADS // 2,),
}  # fmt: skip


def names_of(case: str) -> dict[str, str]:
    """Megatron-core's names to NeMo's own. `.module.` is in memory alone, where the precision is mixed."""
    return {name.replace(".module.", "."): own for name, own in CASES[case]["mcore_to_legacy"].items()}


def write(folder: Path, case: str, tensors: dict[str, torch.Tensor], **more: Any) -> Path:
    folder.mkdir()
    torch.save(tensors, folder / "model_weights.ckpt")
    config = {key: value for key, value in {**CASES["gpt2"]["cfg"], **CASES[case]["cfg"]}.items() if key != "megatron_amp_O2"}
    config |= {"hidden_size": HIDDEN, "ffn_hidden_size": FFN, "num_attention_heads": HEADS, "max_position_embeddings": PLACES}
    config |= {"make_vocab_size_divisible_by": 2, "mcore_gpt": False, "activation": "fast-swiglu" if case == "llama" else "gelu", **more}
    (folder / "model_config.yaml").write_text(yaml.safe_dump(config))
    return folder


def made(case: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    tensors: dict[str, torch.Tensor] = {}
    for name in names_of(case).values():
        gate_and_up = (FFN * (2 if case == "llama" else 1), HIDDEN)
        shape = next((shape for part, shape in ROWS.items() if part in name), gate_and_up if "dense_h_to_4h" in name else (HIDDEN,))
        tensors[name] = torch.randn(shape if name.endswith("weight") else shape[:1])
    return tensors


def load(folder: Path) -> dict[str, torch.Tensor]:
    return dict(torch.load(folder / "model_weights.ckpt", weights_only=True))


@pytest.mark.parametrize("case", CASES)
def test_names_are_the_frameworks_and_back(case: str, tmp_path: Path) -> None:
    first, names = made(case), names_of(case)
    ckptc.plan(write(tmp_path / "legacy", case, first), to="nemo").run(tmp_path / "mcore")
    there = load(tmp_path / "mcore")
    assert there.keys() == names.keys() - {FREQUENCIES}
    assert all(torch.equal(tensor, first[names[name]]) for name, tensor in there.items())
    config = yaml.safe_load((tmp_path / "mcore/model_config.yaml").read_text())
    said = {**CASES["gpt2"]["cfg"], **CASES[case]["cfg"]}
    assert {key: config[key] for key in CASES["gpt2"]["cfg"]} == {key: said[key] for key in CASES["gpt2"]["cfg"]}

    ckptc.plan(tmp_path / "mcore", to="nemo-legacy").run(tmp_path / "back")
    back = load(tmp_path / "back")
    assert back.keys() == first.keys()
    assert all(torch.equal(tensor, first[name]) for name, tensor in back.items() if not name.endswith("inv_freq"))


def test_gate_and_up_in_tensors_of_their_own_are_joined(tmp_path: Path) -> None:
    """As with an activation that is not one of the fast ones: Megatron-core's modules have one tensor."""
    first = made("llama")
    parts = dict(first)
    for name in [name for name in first if "dense_h_to_4h" in name]:
        parts[name], parts[name.replace("dense_h_to_4h", "dense_h_to_4h_2")] = first[name].chunk(2)
    ckptc.plan(write(tmp_path / "legacy", "llama", parts, activation="swiglu"), to="nemo").run(tmp_path / "mcore")
    there, names = load(tmp_path / "mcore"), names_of("llama")
    assert there.keys() == names.keys() - {FREQUENCIES}
    assert all(torch.equal(tensor, first[names[name]]) for name, tensor in there.items())
