"""`ckptc zero1`: optimizer state from one data parallel degree to another, against plain torch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptc as face
from ckptc.runtime.fault import Fault
from tests.zero_state import SHAPES, files, load, merged, name_of, same, split, whole, write

STAGES = {(0, 0): SHAPES, (1, 0): SHAPES, (0, 1): {**SHAPES, 4: [5, 6, 2]}, (1, 1): {**SHAPES, 4: [5, 6, 2]}}


def states(keys: Any = STAGES, **how: Any) -> dict[tuple[Any, ...], Any]:
    return {key: whole(seed, shapes, **how) for seed, (key, shapes) in enumerate(keys.items())}


def check(out: Path, wholes: dict[tuple[Any, ...], Any], dp: int | None) -> None:
    """The files are those of `wholes`, cut for `dp`, and no others."""
    expected = {name_of(rank, *key): part for key, state in wholes.items() for rank, part in (enumerate(split(state, dp)) if dp else [(None, state)])}
    assert [f.name for f in files(out)] == sorted(expected)
    for name, part in expected.items():
        assert same(load(out / name), part), name


@pytest.mark.parametrize("xser", [False, True])
@pytest.mark.parametrize(("dp", "to"), [(2, 4), (4, 3), (3, 1), (1, 5), (5, None), (None, 4), (8, 16), (2, 2)])
def test_state_is_merged_and_cut_again(dp: int | None, to: int | None, xser: bool, tmp_path: Path) -> None:
    wholes = states()
    write(tmp_path / "tag", wholes, dp, xser)
    face.zero1(tmp_path / "tag", tmp_path / "out", dp=to)
    check(tmp_path / "out", wholes, to)
    assert bool(list((tmp_path / "out").glob("*.tensors"))) == xser


def test_there_and_back_is_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "tag", states(), 4)
    face.zero1(tmp_path / "tag/optim", tmp_path / "full")
    face.zero1(tmp_path / "full", tmp_path / "again", dp=4)
    face.zero1(tmp_path / "tag", tmp_path / "direct", dp=4)
    assert {f.name: hashlib.sha256(f.read_bytes()).digest() for f in files(tmp_path / "again")} == {
        f.name: hashlib.sha256(f.read_bytes()).digest() for f in files(tmp_path / "direct")
    }


@pytest.mark.parametrize("xser", [False, True])
def test_the_container_may_be_changed(xser: bool, tmp_path: Path) -> None:
    wholes = states(master=False)
    write(tmp_path / "tag", wholes, 2, xser)
    face.zero1(tmp_path / "tag", tmp_path / "out", dp=3, format="pt" if xser else "xser")
    check(tmp_path / "out", wholes, 3)
    assert bool(list((tmp_path / "out").glob("*.tensors"))) != xser


def test_expert_parallel_ranks_are_groups_of_their_own(tmp_path: Path) -> None:
    wholes = states({(tp, pp, ep): {0: [9 + pp, 2 + ep]} for tp in range(2) for pp in range(2) for ep in range(3)})
    write(tmp_path / "tag", wholes, 2)
    face.zero1(tmp_path / "tag", tmp_path / "out", dp=4)
    check(tmp_path / "out", wholes, 4)


def test_groups_may_all_be_different(tmp_path: Path) -> None:
    wholes = states({(tp, pp): {i: [3 + tp, 2 + pp + i] for i in range(1 + tp)} for tp in range(3) for pp in range(5)})
    write(tmp_path / "tag", wholes, 3)
    face.zero1(tmp_path / "tag", tmp_path / "out", dp=2)
    check(tmp_path / "out", wholes, 2)


def test_equal_groups_share_their_rules(tmp_path: Path) -> None:
    from ckptc.reshard_zero1 import plan

    write(tmp_path / "tag", states({(tp, pp): SHAPES for tp in range(4) for pp in range(4)}), 2)
    assert len(plan(tmp_path / "tag", dp=4).data.target.stored) == 4 * len(SHAPES)


def test_a_step_may_be_a_number_and_a_group_may_have_no_state_yet(tmp_path: Path) -> None:
    wholes = states()
    for state in wholes.values():
        for each in state["base_state"].values():
            each["step"] = 12
    empty = wholes[0, 1]
    empty["base_state"] = empty["sharded_master_weights"] = {}
    for name in ("plain", "xser"):
        write(tmp_path / name / "tag", wholes, 2, name == "xser")
        face.zero1(tmp_path / name / "tag", tmp_path / name / "out", dp=3)
        check(tmp_path / name / "out", wholes, 3)


def test_more_state_than_memory_goes_through(tmp_path: Path) -> None:
    wholes = states({(0, 0): {0: [3001, 401], 1: [5000]}})
    write(tmp_path / "tag", wholes, 4)
    report = face.zero1(tmp_path / "tag", tmp_path / "out", dp=3, memory="3MiB")
    assert report.peak_buffer_bytes <= 3 << 20 < report.bytes_written
    check(tmp_path / "out", wholes, 3)


def test_the_newest_complete_tag_is_read(tmp_path: Path) -> None:
    wholes = states()
    write(tmp_path / "run/step_3", wholes, 2)
    (tmp_path / "run/step_3/model").mkdir()
    (tmp_path / "run/step_3/done").write_text("1")
    face.zero1(tmp_path / "run", tmp_path / "out", dp=4)
    check(tmp_path / "out", wholes, 4)


def test_the_command_says_what_it_does(tmp_path: Path, ckptc: Callable[..., Any]) -> None:
    wholes = states()
    write(tmp_path / "tag", wholes, 2)
    done = ckptc("zero1", tmp_path / "tag", tmp_path / "tag/optim_dp4", "--dp", 4)
    assert done.code == 0, done.err
    assert "sharded (dp 2) -> sharded (dp 4)" in done.out
    check(tmp_path / "tag/optim_dp4", wholes, 4)
    assert ckptc("zero1", tmp_path / "tag", tmp_path / "dry", "--full", "--dry-run").code == 0
    assert not (tmp_path / "dry").exists()
    for wrong in ([], ["--dp", 2, "--full"], ["--dp", 0]):
        assert ckptc("zero1", tmp_path / "tag", tmp_path / "out", *wrong).code == 2
    again = ckptc("zero1", tmp_path / "tag", tmp_path / "tag/optim_dp4", "--full")
    assert again.code == 1
    assert "destination-exists" in again.err
    assert ckptc("zero1", tmp_path / "tag", tmp_path / "tag/optim_dp4", "--full", "--overwrite").code == 0
    check(tmp_path / "tag/optim_dp4", wholes, None)


def test_the_script_is_run_by_its_own_arguments(tmp_path: Path, ckptc: Callable[..., Any]) -> None:
    wholes = states()
    write(tmp_path / "tag", wholes, 2)
    (tmp_path / "out/optim").mkdir(parents=True)
    (tmp_path / "out/optim/old.pt").write_text("old")
    where = ("--input_dir", tmp_path / "tag", "--output_dir", tmp_path / "out")
    done = ckptc("compat", "convert_zero_checkpoints.py", *where, "--convert_to_sharded", "--dp_size", 3, "--unheard_of", 4)
    assert done.code == 0, done.err
    assert done.out.startswith("ckptc zero1 ")
    assert "note: ignored, as by the script: --unheard_of 4" in done.err
    check(tmp_path / "out/optim", wholes, 3)
    there = ckptc("compat", "convert_zero_checkpoints", "--input_dir", tmp_path / "tag", "--output_dir", tmp_path / "tag", "--convert_to_full")
    assert there.code == 1
    assert "source-in-destination" in there.err
    check(tmp_path / "tag/optim", wholes, 2)


def change(what: Callable[[dict[str, Any]], Any], rank: int = 1) -> Callable[[Path], None]:
    def of(optim: Path) -> None:
        path = optim / name_of(rank, 0, 1)
        state = torch.load(path)
        what(state)
        torch.save(state, path)

    return of


def remove(*names: str) -> Callable[[Path], None]:
    return lambda optim: [(optim / name).unlink() for name in names] and None


def add(name: str, value: Any = None) -> Callable[[Path], None]:
    return lambda optim: torch.save(value if value is not None else whole(), optim / name)


def every(what: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    return lambda optim: [change(what, rank)(optim) for rank in range(2)] and None


FAULTS: dict[str, tuple[str, str, Callable[[Path], None]]] = {
    "a rank's file is missing": ("missing-file", "dp_rank_00_tp_rank_01_pp_rank_01", remove(name_of(0, 1, 1))),
    "the last rank's files are missing but for one group": ("missing-file", "lacks 3 of", lambda optim: [remove(name_of(1, *key))(optim) for key in list(STAGES)[1:]] and None),
    "a rank is beyond the others": ("missing-file", "dp_rank_02", add(name_of(3, 0, 0))),
    "full files are among the others": ("mixed-files", "full and sharded", add(name_of(None, 0, 0))),
    "names with ep_rank are among the others": ("mixed-files", "ep_rank", add(name_of(0, 0, 0, 1))),
    "a file of something else": ("extra-file", "scheduler.pt", add("scheduler.pt")),
    "a name with other digits": ("extra-file", "dp_rank_0_tp", add("dp_rank_0_tp_rank_00_pp_rank_00.pt")),
    "a moment has other rows than shape_info says": ("wrong-shape", r"base_state\.1\.exp_avg", every(lambda s: s["base_state"][1].update(exp_avg=torch.zeros(3, 5)))),
    "shape_info has other columns": ("wrong-shape", r"base_state\.3", every(lambda s: s["shape_info"].update({3: [12, 5]}))),
    "shape_info lacks a parameter": ("no-shape-info", "nothing of the shape", every(lambda s: s["shape_info"].pop(3))),
    "shape_info is missing": ("no-shape-info", "shape_info", every(lambda s: s.pop("shape_info"))),
    "shape_info says no numbers": ("no-shape-info", "shape", every(lambda s: s["shape_info"].update({3: [12, "4"]}))),
    "ranks disagree about param_groups": ("ranks-disagree", r"param_groups\.0\.lr", change(lambda s: s["param_groups"][0].update(lr=2e-3))),
    "ranks disagree about shape_info": ("ranks-disagree", r"shape_info\.0\.0", change(lambda s: s["shape_info"].update({0: [12, 3]}))),
    "ranks disagree about a dtype": ("ranks-disagree", r"base_state\.2\.exp_avg", change(lambda s: s["base_state"][2].update(exp_avg=s["base_state"][2]["exp_avg"].half()))),
    "one rank has no master weights": ("ranks-disagree", "about `sharded_master_weights`", change(lambda s: s.pop("sharded_master_weights"))),
    "ranks disagree about a step": ("copies-differ", "step", change(lambda s: s["base_state"][0]["step"].add_(1))),
    "an unknown tensor": ("unknown-tensor", r"state\.0\.momentum", every(lambda s: s["state"].update({0: {"momentum": torch.zeros(3)}}))),
    "a value that is no plain one": ("odd-value", "`odd`", every(lambda s: s.update(odd={1, 2}))),
    "the optimizer for expert parallelism": ("expert-optimizer", "expert parallelism", every(lambda s: s.update(ep_param_id_offset=3))),
    "a cut off file": ("", "", lambda optim: (optim / name_of(1, 1, 1)).write_bytes((optim / name_of(1, 1, 1)).read_bytes()[:900]) and None),
}  # fmt: skip


@pytest.mark.parametrize("what", FAULTS)
def test_what_would_go_wrong_is_one_fault_and_no_output(what: str, tmp_path: Path) -> None:
    code, said, damage = FAULTS[what]
    write(tmp_path / "tag", states(), 2)
    damage(tmp_path / "tag/optim")
    with pytest.raises(Fault) as caught:
        face.zero1(tmp_path / "tag", tmp_path / "out", dp=4)
    text = " ".join((caught.value.title, *caught.value.notes))
    assert re.search(said, text), text
    assert caught.value.code == code or not code
    assert [p.name for p in tmp_path.iterdir()] == ["tag"]


@pytest.mark.parametrize(
    ("dst", "code"), [("tag", "source-in-destination"), ("tag/optim", "source-in-destination"), ("tag/optim/new", "destination-in-source")]
)
def test_the_source_is_never_written_to(dst: str, code: str, tmp_path: Path) -> None:
    wholes = states()
    write(tmp_path / "tag", wholes, 2)
    with pytest.raises(Fault) as caught:
        face.zero1(tmp_path / "tag", tmp_path / dst, dp=4, overwrite=True)
    assert caught.value.code == code
    check(tmp_path / "tag/optim", wholes, 2)


def test_folders_without_state_are_refused(tmp_path: Path) -> None:
    wholes = states()
    for state in wholes.values():
        state["base_state"] = state["sharded_master_weights"] = {}
    write(tmp_path / "tag", wholes, 2)
    for folder, code in (("tag", "no-tensors"), ("nowhere", "no-checkpoint"), (".", "no-checkpoint")):
        with pytest.raises(Fault) as caught:
            face.zero1(tmp_path / folder, tmp_path / "out", dp=4)
        assert caught.value.code == code


def test_xser_without_a_tensor_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "tag", states(), 2, xser=True)
    (tmp_path / "tag/optim" / f"{name_of(1, 0, 1)}.tensors/tensor_3.pt").unlink()
    with pytest.raises(Fault, match="not there") as caught:
        face.zero1(tmp_path / "tag", tmp_path / "out", dp=4)
    assert caught.value.code == "missing-file"


@pytest.mark.parametrize(("options", "code"), [({"dp": 0}, "bad-degree"), ({"dp": True}, "bad-degree"), ({"dp": 2, "format": "safetensors"}, "unknown-format")])
def test_degrees_and_containers_that_there_are_not(options: dict[str, Any], code: str, tmp_path: Path) -> None:
    with pytest.raises(Fault) as caught:
        face.zero1(tmp_path, tmp_path / "out", **options)
    assert caught.value.code == code


def test_merging_by_hand_gives_what_was_split() -> None:
    state = whole()
    assert same(merged(split(state, 5)), state)
