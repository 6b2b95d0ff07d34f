"""Rank files that Megatron-core's own models left (--ckpt-format torch): to its distributed checkpoints, to HuggingFace and back."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptc
from ckptc.dsl.diagnostic import MappingError
from ckptc.runtime.fault import Fault

from .megatron_cases import MEGATRON, expected, folders, seen

pytestmark = pytest.mark.skipif(not MEGATRON.is_dir(), reason=f"no oracle data: {MEGATRON} is absent")
DENSE, EXPERTS = MEGATRON / "legacy" / "dense_tp2pp2", MEGATRON / "legacy" / "moe_ep2"
TWIN = MEGATRON / "hf_v0.20dev_dense_tp1"
FILE = "model_optim_rng.pt"


def hashes(path: Path) -> dict[str, Any]:
    """The tensors of a distributed checkpoint, as the framework's own list has them."""
    return {t.name: seen(t.read()) for t in ckptc.open(path)}


def of(path: Path) -> dict[str, Any]:
    return {name: {key: value[key] for key in ("shape", "dtype", "sha256")} for name, value in expected(path).items()}


def rank(path: Path) -> dict[str, Any]:
    """What one rank's file holds, by torch alone."""
    held = torch.load(path, weights_only=True)
    assert isinstance(held, dict)
    return held


@pytest.mark.parametrize("config", [None, TWIN / "config.json"])
def test_rank_files_become_the_framework_s_global_tensors(tmp_path: Path, config: Path | None) -> None:
    """Sizes come from the arguments within the files, or from a config."""
    ckptc.convert(DENSE, tmp_path / "out", to="megatron", config=config)
    assert hashes(tmp_path / "out") == of(MEGATRON / "torch_dist" / "v0.20dev_dense_tp1")


def test_experts_of_ranks_become_the_framework_s_global_tensors(tmp_path: Path) -> None:
    """`mp_rank_00_001` is of experts here, and of stages in the other checkpoint."""
    plan = ckptc.plan(EXPERTS, to="megatron", settings={"shared_experts": True, "spec": "local"})
    assert dict(plan.data.source.ranks) == {"tp": 1, "pp": 1, "ep": 2}
    plan.run(tmp_path / "out")
    assert hashes(tmp_path / "out") == of(MEGATRON / "torch_dist" / "v0.20dev_moe_seq_ep2_shexp")


def test_the_twin_becomes_the_very_rank_files(tmp_path: Path) -> None:
    ckptc.convert(TWIN, tmp_path / "out", to="megatron-legacy", tp=2, pp=2, settings={"spec": "local", "pad_vocab_to": 64})
    wanted = json.loads(DENSE.with_name("dense_tp2pp2.expected.json").read_text())["ranks"]
    assert {p.name for p in (tmp_path / "out/release").iterdir()} == set(wanted)
    for folder, said in wanted.items():
        held = rank(tmp_path / "out/release" / folder / FILE)["model"]
        theirs = torch.load(DENSE / "iter_0000007" / folder / FILE, weights_only=False)["model"]
        assert set(held) == set(theirs)  # also the modules' further state, which is None
        assert {n: seen(t) for n, t in held.items() if t is not None} == {
            n: {key: value[key] for key in ("shape", "dtype", "sha256")} for n, value in said["tensors"].items()
        }
    assert (tmp_path / "out/latest_checkpointed_iteration.txt").read_text() == "release"


def test_rank_files_become_the_twin(tmp_path: Path) -> None:
    ckptc.convert(DENSE, tmp_path / "out", to="hf", family="llama")
    assert hashes(tmp_path / "out") == hashes(TWIN)
    wanted, got = (json.loads((path / "config.json").read_text()) for path in (TWIN, tmp_path / "out"))
    for key in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim", "num_hidden_layers",
                "vocab_size", "rms_norm_eps", "tie_word_embeddings", "max_position_embeddings", "model_type"):  # fmt: skip
        assert got[key] == wanted[key]
    assert got["rope_theta"] == wanted["rope_parameters"]["rope_theta"]


def test_degrees_of_rank_files_change_as_a_whole(tmp_path: Path) -> None:
    """TP 2, PP 2 to TP 1, PP 2, VPP 2: layers 0 and 2 are of the first stage then."""
    ckptc.convert(DENSE, tmp_path / "out", to="megatron-legacy", tp=1, vpp=2)
    held = rank(tmp_path / "out/release/mp_rank_00_000" / FILE)
    whole = {t.name: t.read() for t in ckptc.open(MEGATRON / "torch_dist" / "v0.20dev_dense_tp1")}
    for turn, layer in ((0, 0), (1, 2)):
        mlp = held[f"model{turn}"]["decoder.layers.0.mlp.linear_fc1.weight"]
        assert torch.equal(mlp, whole["decoder.layers.mlp.linear_fc1.weight"][layer])
    assert "embedding.word_embeddings.weight" in held["model0"]
    assert "embedding.word_embeddings.weight" not in held["model1"]
    ckptc.convert(tmp_path / "out", tmp_path / "back", to="megatron", config=TWIN / "config.json")
    assert hashes(tmp_path / "back") == of(MEGATRON / "torch_dist" / "v0.20dev_dense_tp1")


@pytest.mark.parametrize("path", folders("torch_dist")[:1])
def test_arguments_that_say_nothing_of_the_model_are_none(path: Path) -> None:
    with pytest.raises(Fault, match="there is no config") as error:
        ckptc.plan(path, to="hf")
    assert error.value.code == "no-config"


def test_a_rank_that_is_missing_is_missed(tmp_path: Path) -> None:
    for folder in ("mp_rank_00_000", "mp_rank_00_001", "mp_rank_01_000"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / FILE).write_bytes((DENSE / "iter_0000007" / folder / FILE).read_bytes())
    with pytest.raises((Fault, MappingError)) as error:
        ckptc.plan(tmp_path, to="hf", config=TWIN / "config.json").totals()
    assert "mp_rank_01_001" in str(error.value) + repr(error.value.__dict__)


def test_the_files_are_as_they_were(tmp_path: Path) -> None:
    """Reading a pickle of a run changes nothing and imports nothing of it."""
    before = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in DENSE.rglob("*.pt")}
    ckptc.open(DENSE)
    assert before == {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in DENSE.rglob("*.pt")}
