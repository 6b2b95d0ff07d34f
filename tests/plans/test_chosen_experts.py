"""Experts that sigmoid scores choose, in groups, to Megatron-core: GLM-4.5 with a layer that predicts a further token, and what
Megatron-core's router does otherwise (topk_routing_with_score_function and group_limited_topk of core/transformer/moe/moe_utils.py)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ckptc
from tests.held import counted, read
from tests.made_deepseek import huggingface

from .test_megatron_families import AT, FAMILIES, HIDDEN, LAYERS, VOCAB, saved


def test_a_layer_of_glm_that_predicts_goes_to_megatron_core_and_back(tmp_path: Path) -> None:
    shapes, keys = FAMILIES["glm4_moe"]
    last = f"{AT}{LAYERS}."
    shapes = shapes | {last + name.removeprefix(f"{AT}0."): shape for name, shape in shapes.items() if name.startswith(f"{AT}0.")}
    shapes |= {f"{last}{name}.weight": (HIDDEN,) for name in ("enorm", "hnorm", "shared_head.norm")} | {f"{last}eh_proj.weight": (HIDDEN, 2 * HIDDEN)}
    hf = counted(shapes)
    copies = {f"{last}embed_tokens.weight": torch.ones(VOCAB, HIDDEN), f"{last}shared_head.head.weight": torch.ones(VOCAB, HIDDEN)}
    source = saved(tmp_path / "hf", "glm4_moe", hf, {**keys, "num_nextn_predict_layers": 1})
    save_file(hf | copies, source / "model.safetensors")
    for to, degrees in (("megatron", {}), ("megatron-legacy", {"tp": 2, "pp": 3}), ("nemo2", {})):
        made = ckptc.plan(source, to=to, **degrees)
        assert {"further_embed", "further_head"} <= {*made.data.target.omitted}
        made.run(tmp_path / to)
        ckptc.convert(tmp_path / to, tmp_path / f"{to}-hf", to="hf", config=source / "config.json")
        back = load_file(tmp_path / f"{to}-hf/model.safetensors")
        assert back.keys() == hf.keys()
        assert [name for name, x in hf.items() if not torch.equal(x, back[name])] == []
    found = read(tmp_path / "megatron")
    assert torch.equal(found["mtp.layers.0.eh_proj.weight"], hf[f"{last}eh_proj.weight"])
    assert torch.equal(found["mtp.layers.0.transformer_layer.mlp.router.weight"], hf[f"{last}mlp.gate.weight"])


@pytest.mark.parametrize("to", ["megatron", "megatron-legacy"])
def test_weights_of_experts_that_do_not_sum_to_1_are_refused(to: str, tmp_path: Path) -> None:
    huggingface(tmp_path / "hf", norm_topk_prob=False)
    with pytest.raises(ckptc.MappingError, match="sum to 1"):
        ckptc.plan(tmp_path / "hf", to=to)


@pytest.mark.parametrize(("chosen", "groups", "other"), [(4, 2, False), (3, 2, True), (2, 2, True), (2, 1, False)])
def test_groups_that_megatron_core_chooses_otherwise_are_said(chosen: int, groups: int, other: bool, tmp_path: Path) -> None:
    huggingface(tmp_path / "hf", n_group=2, topk_group=groups, num_experts_per_tok=chosen)
    assert ("choose other groups" in " ".join(ckptc.plan(tmp_path / "hf", to="megatron").notes)) == other
