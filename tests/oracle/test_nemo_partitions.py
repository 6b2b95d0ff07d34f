"""GPT at one tensor and pipeline parallel degree to another: every case of the oracle, and the whole grid."""

from __future__ import annotations

import re
import tarfile
from itertools import product
from pathlib import Path

import pytest
import torch
import yaml

import ckptc
from tests.archives import unpack

from .nemo_cases import ORACLE, Case, Held, contents

if not ORACLE.is_dir():
    pytest.skip(f"no oracle data at {ORACLE}", allow_module_level=True)

LAYOUT = {case.name: "nemo-legacy" if "legacy" in case.name else "nemo" for case in sorted(ORACLE.glob("gpt_*"))}
CASES = {name: Case(name) for name in LAYOUT}
STEPS = [(name, step) for name, case in CASES.items() for step in case.expected()]
STEP = re.compile(r"(?:tp(\d+))?(?:pp(\d+))?_?to_?(?:tp)?(\d+)(?:pp(\d+))?")


def degrees(step: str) -> tuple[tuple[int, int], tuple[int, int]]:
    found = STEP.fullmatch(step)
    assert found, f"the oracle has a step of another form: {step}"
    tp, pp, to_tp, to_pp = (int(n or 1) for n in found.groups())
    return (tp, pp), (to_tp, to_pp)


def repartition(case: Case, source: Path, out: Path, tp: int, pp: int) -> dict[tuple[str, str], Held]:
    ckptc.plan(source, to=LAYOUT[case.name], tp=tp, pp=pp, settings={"vocab": case.model["V"]}).run(out)
    return contents(out)


def test_the_oracle_has_all_the_cases_that_are_tested_here() -> None:
    assert {n for n in LAYOUT if n.endswith("tp_change")} == {"gpt_legacy_tp_change", "gpt_mcore_te_tp_change", "gpt_mcore_local_tp_change"}
    assert len(STEPS) >= 20


@pytest.mark.parametrize(("name", "step"), STEPS)
def test_partitions_equal_the_reference(name: str, step: str, tmp_path: Path) -> None:
    case = CASES[name]
    (tp, pp), target = degrees(step)
    source = case.make_source(tmp_path / "one")
    if (tp, pp) != (1, 1):
        repartition(case, source, source := tmp_path / "source", tp, pp)
    assert repartition(case, source, tmp_path / "out", *target) == case.expected()[step]


@pytest.mark.parametrize("name", ["gpt_legacy_tp_change", "gpt_mcore_te_tp_change", "gpt_legacy_tied_bias", "gpt_mcore_te_tied_bias"])
def test_every_pair_of_degrees_through_archives_equals_the_direct_way(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    source = case.make_source(tmp_path / "one")
    there = {n for n in (1, 2, 4) if case.model["G"] % n == 0}
    grid = [(tp, pp) for tp, pp in product(sorted(there), (1, 2, 4)) if case.model["L"] % pp == 0]
    direct = {d: repartition(case, source, tmp_path / f"{d[0]}-{d[1]}.nemo", *d) for d in grid}
    assert len(grid) >= 6
    for one, other in product(grid, grid):
        out = tmp_path / "again.nemo"
        assert repartition(case, tmp_path / f"{one[0]}-{one[1]}.nemo", out, *other) == direct[other], (one, other)
        with tarfile.open(out) as tar:
            member = tar.extractfile("./model_config.yaml")
            assert member is not None
            config = yaml.safe_load(member.read())
        assert (config["tensor_model_parallel_size"], config["pipeline_model_parallel_size"]) == other
        out.unlink()


def test_a_rank_that_is_all_padding_holds_zeros(tmp_path: Path) -> None:
    """make_vocab_size_divisible_by 256 at TP 4: three ranks of four have no token; the reference crashes here."""
    case = CASES["gpt_mcore_te_tp_change"]
    source = case.make_source(tmp_path / "one")
    weights = torch.load(source / "model_weights.ckpt", weights_only=True)
    rows, hidden = case.model["V"], case.model["H"]
    for name in ("model.embedding.word_embeddings.weight", "model.output_layer.weight"):
        weights[name] = torch.cat([weights[name][:rows], torch.zeros(256 - rows, hidden)])
    torch.save(weights, source / "model_weights.ckpt")
    (source / "model_config.yaml").write_text(yaml.safe_dump({**case.config(), "make_vocab_size_divisible_by": 256}))
    ckptc.plan(source, to="nemo", tp=4, settings={"vocab": rows}).run(tmp_path / "out.nemo")
    unpack(tmp_path / "out.nemo", tmp_path / "open")
    ranks = [torch.load(tmp_path / f"open/mp_rank_{r:02}/model_weights.ckpt", weights_only=True) for r in range(4)]
    for name in ("model.embedding.word_embeddings.weight", "model.output_layer.weight"):
        assert [tuple(rank[name].shape) for rank in ranks] == [(256, hidden)] * 4
        assert torch.equal(ranks[0][name], weights[name])
        assert not any(rank[name].any() for rank in ranks[1:])
