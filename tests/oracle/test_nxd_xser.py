"""xser checkpoints: read as training and the converter leave them, written as training reads them, found without a flag.

What is written is checked with plain torch: a reader of the framework's own format, with a stand-in for its class.
"""

from __future__ import annotations

import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptc
from ckptc.runtime.fault import Fault
from tests.asked import asked

from .nxd_cases import ORACLE, Case, contents, digest

if not ORACLE.is_dir():
    pytest.skip(f"no oracle data at {ORACLE}", allow_module_level=True)

TRAINED = Case(ORACLE / "t1_train_xser_gqa_hf_tp4pp2m2__back")
EXPERTS = Case(ORACLE / "t5_train_xser_mixtral_ep2_sliced__back")
TAG = "in/llama--step=5.ckpt"


class TensorReference:
    """Stands in for torch_xla.utils.serialization.TensorReference."""

    def __init__(self, tid: int) -> None:
        self.tid = tid


@pytest.fixture
def torch_xla(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TensorReference, "__module__", "torch_xla.utils.serialization")
    for name in ("torch_xla", "torch_xla.utils", "torch_xla.utils.serialization"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["torch_xla.utils.serialization"].TensorReference = TensorReference  # type: ignore[attr-defined]


def load(file: Path) -> tuple[dict[str, torch.Tensor], dict[int, dict[str, Any]]]:
    """A rank file as the framework's loader reads it: references, infos, then one file per tensor."""
    names = torch.load(file, weights_only=False)
    info = torch.load(f"{file}.info.pt", weights_only=True)
    assert all(type(ref) is TensorReference for ref in names.values())
    assert sorted(info) == sorted(ref.tid for ref in names.values()) == list(range(len(names)))
    found = {}
    for name, ref in names.items():
        shared = not info[ref.tid]["expert_model_parallel"] and "ep_rank_" in file.name
        folder = file.with_name(file.name.replace("ep_rank_01", "ep_rank_00")) if shared else file
        found[name] = torch.load(f"{folder}.tensors/tensor_{ref.tid}.pt", weights_only=True)
        assert (found[name].dtype, found[name].shape) == (info[ref.tid]["dtype"], info[ref.tid]["shape"])
        assert isinstance(info[ref.tid]["shape"], torch.Size)
    return found, info


def originals(name: str):
    case = Case(ORACLE / name)
    return {n: h for (f, n), h in case.input.items() if f == "pytorch_model.bin"}


@pytest.mark.usefixtures("torch_xla")
def test_what_is_written_is_what_the_frameworks_loader_reads(tmp_path: Path) -> None:
    case = Case(ORACLE / "b_gqa_hf_tp4pp2m2_trn1__fwd")
    plan = ckptc.plan(case.folder / "in/pytorch_model.bin", to="nxdt", config=case.folder / "in/config.json", tp=4, pp=2, settings={"kv_multiplier": 2}, format="xser")
    report = plan.run(tmp_path / "out")
    assert sorted(report.files) == sorted(str(f.relative_to(tmp_path / "out")) for f in (tmp_path / "out").rglob("*") if f.is_file())
    assert plan.totals().bytes_written == sum(f.stat().st_size for f in (tmp_path / "out").rglob("*") if f.is_file())
    found = {}
    for file in (tmp_path / "out/model").glob("*_pp_rank_??.pt"):
        tensors, info = load(file)
        assert not any(each["expert_model_parallel"] for each in info.values())
        found |= {(f"model/{file.name}", n): (tuple(t.shape), str(t.dtype).removeprefix("torch."), digest(t)) for n, t in tensors.items()}
    assert found == case.expected


@pytest.mark.usefixtures("torch_xla")
def test_expert_parallel_ranks_reference_what_rank_0_has_for_them(tmp_path: Path) -> None:
    case = Case(ORACLE / "m1_mixtral_nxd_hf_tp2pp1ep2__fwd")
    of = {"to": "nxdt", "config": case.folder / "in/config.json", "tp": 2, "ep": 2}
    ckptc.plan(case.folder / "in/pytorch_model.bin", **asked(**of), format="xser").run(tmp_path / "x")
    ckptc.plan(case.folder / "in/pytorch_model.bin", **asked(**of)).run(tmp_path / "p")
    for ep in (0, 1):
        for tp in (0, 1):
            name = f"model/dp_rank_00_ep_rank_0{ep}_tp_rank_0{tp}_pp_rank_00.pt"
            tensors, info = load(tmp_path / "x" / name)
            plain = torch.load(tmp_path / "p" / name, weights_only=True)
            assert list(tensors) == list(plain)
            assert all(torch.equal(tensors[n], plain[n]) for n in plain)
            cut = [n for n, each in zip(tensors, info.values(), strict=True) if each["expert_model_parallel"]]
            assert cut == [n for n in plain if "expert_mlps" in n]
            own = {int(f.stem.split("_")[1]) for f in (tmp_path / "x" / f"{name}.tensors").iterdir()}
            assert own == ({i for i, n in enumerate(plain) if n in cut} if ep else set(range(len(plain))))


@pytest.mark.usefixtures("torch_xla")
@pytest.mark.parametrize("case", [TRAINED, EXPERTS], ids=["dense", "experts"])
def test_a_training_checkpoint_is_written_again_as_it_was(case: Case, tmp_path: Path) -> None:
    """Same layout on both sides: degrees, settings and stages stay. The order of numbers in a file is its own."""
    ckptc.plan(case.folder / TAG, to="nxdt", config=case.folder / "in/config.json", format="xser").run(tmp_path / "out")
    assert contents(tmp_path / "out") == {(f"model/{f}" if "/" not in f else f, n): h for (f, n), h in contents(case.folder / TAG).items()}
    for file in (case.folder / TAG / "model").glob("*_pp_rank_??.pt"):
        theirs, ours = load(file), load(tmp_path / "out/model" / file.name)
        assert set(theirs[0]) == set(ours[0])
        assert all(torch.equal(theirs[0][n], ours[0][n]) for n in theirs[0])
        flags = [{n: i[k]["expert_model_parallel"] for k, n in enumerate(t)} for t, i in (theirs, ours)]
        assert flags[0] == flags[1]


@pytest.mark.parametrize("place", [TAG, f"{TAG}/model", "in"])
def test_a_tag_its_folder_and_the_model_in_it_are_one_checkpoint(place: str, tmp_path: Path) -> None:
    plan = ckptc.plan(TRAINED.folder / place, to="hf", config=TRAINED.folder / "in/config.json", from_settings={"hw": "trn1"})
    plan.run(tmp_path / "out")
    assert {n: h for (_, n), h in contents(tmp_path / "out").items()} == {n: h for (_, n), h in TRAINED.expected.items()}


def test_info_files_may_be_missing_or_have_the_nnm_converters_wrong_name(tmp_path: Path) -> None:
    case = Case(ORACLE / "n2_nnm_to_nxdt_then_hf")
    assert not list((case.folder / "in/model").glob("*.pt.info.pt"))
    plan = ckptc.plan(case.folder / "in/model", to="hf", config=case.folder / "in/config.json")
    plan.run(tmp_path / "out")
    found = {t.name: t.read() for t in ckptc.open(tmp_path / "out")}
    held = {(t.file, t.name): t.read() for t in ckptc.open(case.folder / "in/model")}
    embed = [t for (_, n), t in sorted(held.items()) if n.endswith("word_embeddings.weight")]
    assert torch.equal(found["model.embed_tokens.weight"], torch.cat(embed))
    assert len(found) == 43
    assert "model.layers.3.self_attn.rotary_emb.inv_freq" in found


def test_an_empty_folder_of_tensors_beside_whole_ones_is_the_converters(tmp_path: Path) -> None:
    case = Case(ORACLE / "e1_gqa_hf_xser_tp4pp2m2__back")
    folder = tmp_path / "in/model"
    shutil.copytree(case.folder / "in/model", folder)
    for file in folder.glob("*.pt"):
        (folder / f"{file.name}.tensors").mkdir(exist_ok=True)
    ckptc.plan(folder, to="hf", config=case.folder / "in/config.json", from_settings={"hw": "trn1"}).run(tmp_path / "out")
    assert {n: h for (_, n), h in contents(tmp_path / "out").items()} == {n: h for (_, n), h in case.expected.items()}


def test_neuron_nemo_megatron_becomes_a_checkpoint_that_training_finds(tmp_path: Path) -> None:
    from ckptc.main import main

    case = Case(ORACLE / "n1_nnm_to_nxdt_tp2pp2")
    words = [w.replace("{in}", str(case.folder / "in")).replace("{out}", str(tmp_path / "out")) for w in case.spec["argv"]]
    with pytest.raises(SystemExit) as stopped:
        main(["compat", "nnm_model_ckpt_to_nxdt_model_ckpt_converter.py", *words])
    assert stopped.value.code == 0
    assert ((tmp_path / "out/done").read_text(), (tmp_path / "out/checkpoint").read_text()) == ("1", "1")
    listed = {f["path"]: f for f in json.loads((case.folder / "expected.json").read_text())["files"]}
    expected = {}
    for file, record in listed.items():
        if file.endswith(".pt") and ".info" not in file and ".tensors" not in file:
            for name, kind, tid in record["non_tensor"]:
                assert kind == "tensor_reference"
                expected[file, name] = case.expected[f"{file}.tensors/tensor_{tid}.pt", ""]
    assert contents(tmp_path / "out") == expected
    with pytest.raises(SystemExit):
        main(["compat", "nnm_model_ckpt_to_nxdt_model_ckpt_converter.py", *words])
    assert contents(tmp_path / "out_v1") == expected


# --- tags -----------------------------------------------------------------------------------------


def run_with_tags(root: Path, **tags: tuple[str, ...]) -> Path:
    """Tags with markers, each holding the trained checkpoint."""
    for tag, marks in tags.items():
        shutil.copytree(TRAINED.folder / TAG / "model", root / tag / "model")
        for mark in marks:
            (root / tag / mark).write_text("1")
    return root


def test_the_newest_complete_tag_is_read(tmp_path: Path) -> None:
    both = ("checkpoint", "done")
    root = run_with_tags(tmp_path / "run", step_9=both, step_10=both, step_11=("checkpoint",))
    import os

    for tag in ("step_9", "step_10"):
        os.utime(root / tag / "done", ns=(10**18, 10**18))
    assert ckptc.open(root).tag == "step_10"  # by number where the times are one
    os.utime(root / "step_9/done", ns=(2 * 10**18, 2 * 10**18))
    assert ckptc.open(root).tag == "step_9"
    (root / "newest").write_text("step_11\n")
    assert ckptc.open(root).tag == "step_9"  # older releases say so in a file, which may name one that is not whole
    (root / "step_11/checkpoint").unlink()
    assert ckptc.open(root).tag == "step_11"


def test_without_a_complete_tag_one_must_be_named(tmp_path: Path) -> None:
    root = run_with_tags(tmp_path / "run", step_9=("checkpoint",), step_10=("checkpoint",))
    with pytest.raises(Fault) as fault:
        ckptc.open(root)
    assert (fault.value.code, fault.value.help) == ("no-complete-tag", f"name the one to read: {root / 'step_10'}")
    assert len(ckptc.open(root / "step_9")) == len(ckptc.open(TRAINED.folder / TAG))


def test_markers_are_written_on_request(tmp_path: Path) -> None:
    config = TRAINED.folder / "in/config.json"
    told = {"hw": "trn1"}
    ckptc.plan(TRAINED.folder / TAG, to="nxdt", config=config, tp=2, from_settings=told).run(tmp_path / "a")
    ckptc.plan(TRAINED.folder / TAG, to="nxdt", config=config, tp=2, from_settings=told, settings={"markers": True}).run(tmp_path / "run/b")
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["model"]
    assert sorted(p.name for p in (tmp_path / "run/b").iterdir()) == ["checkpoint", "done", "model"]
    assert ckptc.open(tmp_path / "run").tag == "b"


# --- what is damaged ------------------------------------------------------------------------------


def damaged(tmp_path: Path) -> Path:
    shutil.copytree(TRAINED.folder / TAG, tmp_path / "tag")
    return tmp_path / "tag"


def test_a_missing_tensor_file_is_named(tmp_path: Path) -> None:
    tag = damaged(tmp_path)
    (tag / "model/dp_rank_00_tp_rank_01_pp_rank_00.pt.tensors/tensor_3.pt").unlink()
    with pytest.raises(Fault) as fault:
        ckptc.open(tag)
    assert fault.value.code == "missing-file"
    assert fault.value.notes[0].startswith("model/dp_rank_00_tp_rank_01_pp_rank_00.pt.tensors/tensor_3.pt: model.layers.0.")


def test_a_tensor_that_is_not_what_its_info_says_is_named(tmp_path: Path) -> None:
    tag = damaged(tmp_path)
    torch.save(torch.zeros(3, 5), tag / "model/dp_rank_00_tp_rank_01_pp_rank_00.pt.tensors/tensor_3.pt")
    with pytest.raises(Fault, match=r"bad-xser.: `.*tensor_3.pt` holds a float32 of shape \[3, 5\]"):
        ckptc.open(tag)


def test_an_experts_own_tensor_is_not_looked_for_in_the_folder_of_rank_0(tmp_path: Path) -> None:
    shutil.copytree(EXPERTS.folder / TAG, tmp_path / "tag")
    file = tmp_path / "tag/model/dp_rank_00_ep_rank_01_tp_rank_00_pp_rank_00.pt"
    sorted(Path(f"{file}.tensors").iterdir())[0].unlink()
    with pytest.raises(Fault, match="missing-file"):
        ckptc.open(tmp_path / "tag")


def test_a_file_that_is_no_single_tensor_is_refused(tmp_path: Path) -> None:
    tag = damaged(tmp_path)
    torch.save({"a": torch.zeros(2), "b": torch.ones(2)}, tag / "model/dp_rank_00_tp_rank_01_pp_rank_00.pt.tensors/tensor_3.pt")
    with pytest.raises(Fault, match="holds 2 tensors"):
        ckptc.open(tag)
