"""Experts that sigmoid scores choose, in groups, to Megatron-core: GLM-4.5 with a layer that predicts a further token, and what
Megatron-core's router does otherwise (topk_routing_with_score_function and group_limited_topk of core/transformer/moe/moe_utils.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ckptc
from ckptc.compiler.settle.resolve import resolve
from ckptc.compiler.settle.sizes import bind_sizes
from ckptc.compiler.settle.write_config import config_text
from ckptc.library import mapping_files as library
from tests import made_deepseek
from tests.held import counted, read
from tests.made_deepseek import huggingface

from .test_megatron_families import AT, COMMON, FAMILIES, HIDDEN, LAYERS, VOCAB, saved


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


V2 = made_deepseek.CONFIG | {"model_type": "deepseek_v2", "n_group": 2, "topk_group": 1, "q_lora_rank": None, "num_nextn_predict_layers": 0}
GROUPED, GREEDY = {"topk_method": "group_limited_greedy"}, {"topk_method": "greedy"}


@pytest.mark.parametrize(("family", "keys", "written"), [
    ("deepseek", V2 | GROUPED, GROUPED | {"n_group": 2, "topk_group": 1, "q_lora_rank": None}), ("deepseek", V2 | GREEDY, GREEDY | {"q_lora_rank": None}),
    ("deepseek", V2 | {"topk_method": None}, GREEDY), ("dots1", COMMON | FAMILIES["dots1"][1] | {"model_type": "dots1"}, {"sliding_window": None, "norm_topk_prob": True}),
])  # fmt: skip
def test_a_config_that_is_written_says_how_experts_are_chosen(family: str, keys: dict[str, Any], written: dict[str, Any]) -> None:
    """DeepSeek-V2's class chooses greedily where nothing is said (transformers, configuration_deepseek_v2.py)."""
    known = next(each for each in library.families(None) if each.name == family)
    block = known.layout("hf").config
    assert block is not None
    sizes = bind_sizes(known, known.layout("hf"), keys, {}, lambda name: name in ("q_norm", "k_norm"), "config.json")
    found = json.loads(config_text(block, resolve(known, "hf", sizes, {}), None))
    assert {key: found[key] for key in written} == written
    assert bind_sizes(known, known.layout("hf"), found, {}, lambda name: name in ("q_norm", "k_norm"), "config.json").values == sizes.values
