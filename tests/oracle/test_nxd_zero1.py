"""Zero1 optimizer state of NxD: every case of the oracle, both containers.

Where there are no master weights the reference is right, and every tensor is its own. It keeps only the first rank's
master weights; there the right result is rebuilt from the input.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import ckptc
from ckptc.cli.commands import invoke
from ckptc.compat.scripts import run_script
from ckptc.runtime.fault import Fault
from ckptc.usage import UsageError
from tests.zero_state import files, load, merged, same, split

from .nxd_cases import ORACLE, Case, digest

if not ORACLE.is_dir():
    pytest.skip(f"no oracle data at {ORACLE}", allow_module_level=True)

ALL = {d.name: Case(d) for d in sorted(ORACLE.glob("z*_zero1_*"))}
MASTER = [n for n in ALL if n.startswith("z1_") and "master" in n]
RIGHT = [n for n in ALL if n.startswith("z1_") and "master" not in n]


def script(name: str, out: Path) -> None:
    places = {"{in}": str(ALL[name].folder / "in"), "{out}": str(out)}
    run_script("convert_zero_checkpoints.py", [places.get(word, word) for word in ALL[name].spec["argv"]], invoke)


def found(out: Path) -> dict[tuple[str, str], Any]:
    return {
        (f"optim/{file.name}", t.name): (tuple(t.shape), t.dtype, digest(t.read()))
        for file in files(out / "optim") for t in ckptc.open(file)
    }  # fmt: skip


def plain_values(folder: Path) -> dict[str, Any]:
    """What `expected.json` says of values that are no tensors."""
    said = json.loads((folder / "expected.json").read_text())["files"]
    return {each["path"]: {k: v for k, _, v in each["non_tensor"]} for each in said if each.get("non_tensor")}


@pytest.mark.parametrize("name", RIGHT)
def test_files_are_those_of_the_script(name: str, tmp_path: Path) -> None:
    script(name, tmp_path)
    assert found(tmp_path) == ALL[name].expected
    for path, values in plain_values(ALL[name].folder).items():
        state = load(tmp_path / path)
        assert [str(n) for n in state["shape_info"][0]] == [values["shape_info.0[0]"], values["shape_info.0[1]"]]
        assert str(state["param_groups"][0]["lr"]) == values["param_groups[0].lr"]


@pytest.mark.parametrize("name", [n for n in MASTER if "full_to" not in n])
def test_master_weights_are_merged_and_cut_like_the_moments(name: str, tmp_path: Path) -> None:
    script(name, tmp_path)
    case = ALL[name]
    dp = None if case.args.get("convert_to_full") == "" else int(case.args["dp_size"])
    for tp in range(2):
        whole = merged([load(case.folder / f"in/optim/dp_rank_{d:02}_tp_rank_{tp:02}_pp_rank_00.pt") for d in range(2)])
        for d, expected in enumerate(split(whole, dp) if dp else [whole]):
            start = f"dp_rank_{d:02}" if dp else "full"
            assert same(load(tmp_path / f"optim/{start}_tp_rank_{tp:02}_pp_rank_00.pt"), expected)


@pytest.mark.parametrize("name", [n for n in MASTER if "full_to" in n])
def test_a_full_file_of_the_script_that_lost_its_master_weights_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(Fault, match="sharded_master_weights") as caught:
        script(name, tmp_path)
    assert caught.value.code == "wrong-shape"
    assert any("only the first rank's master weights" in note for note in caught.value.notes)
    assert not any(tmp_path.iterdir())


def test_full_to_full_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Fault) as caught:
        script("z2_zero1_full_to_full", tmp_path)
    assert caught.value.code == "already-full"
    assert not any(tmp_path.iterdir())


def test_a_torch_size_is_a_shape_as_well_where_the_script_fails(tmp_path: Path) -> None:
    name = "z2_zero1_plain_torchSize_shape_info_to_full"
    assert ALL[name].spec["error"]
    script(name, tmp_path)
    source = ALL[name].folder / "in/optim"
    for tp in range(2):
        parts = [load(source / f"dp_rank_{d:02}_tp_rank_{tp:02}_pp_rank_00.pt") for d in range(2)]
        whole = load(tmp_path / f"optim/full_tp_rank_{tp:02}_pp_rank_00.pt")
        assert same(whole, merged(parts))
        assert {type(shape) for shape in whole["shape_info"].values()} == {type(parts[0]["shape_info"][0])}


def test_sharding_without_a_degree_is_a_fault_of_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--dp_size"):
        script("z2_zero1_sharded_no_dp_size", tmp_path)


def test_every_case_is_tested() -> None:
    assert len(ALL) == len(RIGHT) + len(MASTER) + 3
