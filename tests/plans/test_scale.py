"""Plans for 405 billion parameters: few steps, small files, and byte counts that are exact. No data are read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ckptc
from ckptc.runtime.binding.bind import bind
from ckptc.runtime.plan.plan import Side
from ckptc.runtime.plan.plan_file import dump_plan
from tests.asked import asked

from . import large


def small(plan: ckptc.Plan) -> None:
    assert len(plan.data.steps) < 40
    assert len(dump_plan(plan.data)) < 64 << 10


def is_hf(side: Side) -> None:
    assert (side.proof.tensors, side.proof.model) == (1137, large.PARAMETERS)
    assert side.proof.stored == large.PARAMETERS


def is_ranks(side: Side) -> None:
    assert side.proof.model == large.PARAMETERS
    assert side.proof.stored == large.RANK_ELEMENTS
    assert side.proof.copies == (large.KV - 1) * large.LAYERS * 2 * large.K * large.HIDDEN + (large.TP - 1) * (2 * large.LAYERS + 1) * large.HIDDEN


def test_the_model_has_405_billion_parameters() -> None:
    assert large.PARAMETERS == 405_853_388_800


def test_from_a_config_alone(tmp_path: Path) -> None:
    plan = ckptc.compile("llama", from_="hf", to="nxdt", config=large.write_config(tmp_path), **asked(**large.SETTINGS))
    small(plan)
    is_hf(plan.data.source)
    is_ranks(plan.data.target)


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_from_the_headers_of_191_shards(dtype: str | None, tmp_path: Path) -> None:
    plan = ckptc.plan(large.write_sparse(tmp_path), to="nxdt", dtype=dtype, **asked(**large.SETTINGS))
    small(plan)
    is_hf(plan.data.source)
    is_ranks(plan.data.target)
    assert plan.source
    bound = bind(plan.data, plan.source)
    assert bound.bytes_read == 2 * large.PARAMETERS
    data = sum(region.nbytes for file in bound.files for region in file.layout.regions)
    assert data == large.RANK_ELEMENTS * (2 if dtype is None else 4)
    assert len(bound.files) == large.TP * large.PP
    assert 0 < bound.bytes_written - data < 1 << 24  # what stands around the tensors


def test_back_from_the_names_of_512_rank_files(tmp_path: Path) -> None:
    source = large.rank_checkpoint(tmp_path / "ranks")
    plan = ckptc.plan(source, to="hf", config=large.write_config(tmp_path), from_settings={"hw": "trn1"})
    small(plan)
    assert dict(plan.data.source.ranks) == {"tp": large.TP, "pp": large.PP, "ep": 1}
    assert dict(plan.data.source.params)["kv_multiplier"] == large.KV
    is_ranks(plan.data.source)
    is_hf(plan.data.target)
    bound = bind(plan.data, source)
    assert sum(region.nbytes for file in bound.files for region in file.layout.regions) == 2 * large.PARAMETERS
    index = dict(bound.texts)["model.safetensors.index.json"]
    assert f'"total_size": {2 * large.PARAMETERS}\n'.encode() in index
    copies = (large.KV - 1) * large.LAYERS * 2 * large.K * large.HIDDEN + (large.TP - 1) * (2 * large.LAYERS + 1) * large.HIDDEN
    assert bound.bytes_read == 2 * (large.RANK_ELEMENTS - copies)  # of the copies, only the first


@pytest.mark.parametrize(("to", "settings"), [("nxdt", {"tp": 32, "pp": 8, "kv_multiplier": 4}), ("nxdt-megatron", {"tp": 8, "pp": 16})])
def test_seventy_billion_parameters_from_a_config_alone(to: str, settings: dict[str, int], tmp_path: Path) -> None:
    """Every element is counted: those of the model, key/value heads kv_multiplier times, norms on every rank."""
    layers, hidden, ffn, vocab, q, k = 80, 8192, 28672, 128256, 64 * 128, 8 * 128
    config = {**large.CONFIG, "num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": ffn, "num_attention_heads": 64}
    (tmp_path / "config.json").write_text(json.dumps(config))
    plan = ckptc.compile("llama", from_="hf", to=to, config=tmp_path / "config.json", **asked(**settings))
    small(plan)
    parameters = 2 * vocab * hidden + hidden + layers * (2 * hidden + 2 * q * hidden + 2 * k * hidden + 3 * ffn * hidden)
    assert parameters == 70_553_706_496
    assert plan.data.source.proof.stored == plan.data.target.proof.model == parameters
    copies = (settings.get("kv_multiplier", 1) - 1) * layers * 2 * k * hidden + (settings["tp"] - 1) * (2 * layers + 1) * hidden
    assert plan.data.target.proof.stored == parameters + copies
    assert plan.data.target.proof.padding == 0
