"""`plan.stream`: one rank's tensors straight into memory, equal to the rank's file, with no file written."""

from __future__ import annotations

import builtins
import os
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptc
from tests.asked import asked
from tests.held import same

from .llama import Llama, rank_files, read, to_nxdt, write

MODEL = Llama(layers=5, attention_bias=True)
SETTINGS: dict[str, Any] = {"tp": 3, "pp": 2, "vpp": 2}


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("stream") / "hf", MODEL, shards=2)


@pytest.fixture(scope="module")
def nxdt(hf: Path) -> Path:
    return to_nxdt(hf, hf.parent / "nxdt", **SETTINGS)


@pytest.mark.parametrize("tp", [0, 1, 2])
@pytest.mark.parametrize("pp", [0, 1])
def test_a_rank_streams_what_its_file_holds(tp: int, pp: int, hf: Path, nxdt: Path) -> None:
    plan = ckptc.plan(hf, to="nxdt", **asked(**SETTINGS))
    streamed = list(plan.stream(tp=tp, pp=pp, device="cpu"))
    file = rank_files(nxdt)[f"model/dp_rank_00_tp_rank_{tp:02}_pp_rank_{pp:02}.pt"]
    assert [name for name, _ in streamed] == list(file)
    assert same(dict(streamed), file)
    assert all(t.is_contiguous() and t.device.type == "cpu" for _, t in streamed)


def test_streamed_tensors_are_the_callers_own(hf: Path) -> None:
    plan = ckptc.plan(hf, to="hf")
    streamed = {}
    for name, tensor in plan.stream():
        streamed[name] = tensor.clone()
        tensor.zero_()
    assert same(streamed, MODEL.tensors())


def test_rank_files_stream_as_whole_tensors(hf: Path, nxdt: Path) -> None:
    plan = ckptc.plan(nxdt, to="hf", config=hf, dtype="float32")
    assert same(dict(plan.stream()), {n: t.float() for n, t in MODEL.tensors().items()})


def test_all_ranks_stream_with_their_files_where_that_is_asked_for(hf: Path, nxdt: Path) -> None:
    streamed = dict(ckptc.plan(hf, to="nxdt", **asked(**SETTINGS)).stream(ranks="all"))
    files = rank_files(nxdt)
    assert streamed.keys() == {(file, name) for file, tensors in files.items() for name in tensors}
    for file, tensors in files.items():
        assert same({name: streamed[file, name] for name in tensors}, tensors)


def test_of_shards_the_file_is_the_one_that_would_be_written(hf: Path) -> None:
    streamed = dict(ckptc.plan(hf, to="hf").stream("all"))
    assert same({name: tensor for (_, name), tensor in streamed.items()}, MODEL.tensors())
    assert {file for file, _ in streamed} == {"model.safetensors"}


@pytest.mark.parametrize(("ranks", "missing"), [({}, "tp = 3, pp = 2"), ({"tp": 1}, "pp = 2"), ({"pp": 0}, "tp = 3")])
def test_a_degree_without_its_rank_is_refused_since_names_would_stand_for_several_tensors(ranks: dict[str, int], missing: str, hf: Path) -> None:
    plan = ckptc.plan(hf, to="nxdt", **asked(**SETTINGS))
    for ask in (lambda: plan.stream(**ranks), lambda: plan.stream(ranks)):
        with pytest.raises(ckptc.Fault) as fault:
            ask()
        assert fault.value.code == "no-rank"
        assert f"is cut over {missing}" in fault.value.title
        assert 'ranks="all"' in fault.value.help


def test_no_file_is_written(hf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = ckptc.plan(hf, to="nxdt", **asked(**SETTINGS))
    real_open, real = os.open, builtins.open

    def only_read(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        assert flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) == 0
        return real_open(path, flags, *rest, **options)

    def only_read_too(file: Any, mode: str = "r", *rest: Any, **options: Any) -> Any:
        assert not set(mode) & set("wax+")
        return real(file, mode, *rest, **options)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", only_read)
        patched.setattr(builtins, "open", only_read_too)
        assert len(list(plan.stream(tp=1, pp=1))) > 10
    assert read(hf).keys() == MODEL.tensors().keys()


def test_a_stream_may_be_left_early(hf: Path) -> None:
    held = os.listdir("/proc/self/fd")
    stream = ckptc.plan(hf, to="hf").stream()
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert len(os.listdir("/proc/self/fd")) <= len(held)


def test_a_cast_stream_has_the_dtype(hf: Path) -> None:
    assert {t.dtype for _, t in ckptc.plan(hf, to="nxdt", dtype="float16", tp=3).stream(tp=2)} == {torch.float16}


@pytest.mark.parametrize(("ranks", "code"), [({"tp": 3}, "unknown-rank"), ({"pp": -1}, "unknown-rank"), ({"cp": 0}, "unknown-rank")])
def test_a_rank_that_there_is_not_is_refused(ranks: dict[str, int], code: str, hf: Path) -> None:
    with pytest.raises(ckptc.Fault) as fault:
        next(ckptc.plan(hf, to="nxdt", **asked(**SETTINGS)).stream(**ranks))
    assert fault.value.code == code


def test_stages_stream_from_a_loaded_plan(hf: Path, nxdt: Path, tmp_path: Path) -> None:
    ckptc.plan(hf, to="nxdt", **asked(**SETTINGS)).save(tmp_path / "plan.ckplan")
    loaded = ckptc.load_plan(tmp_path / "plan.ckplan")
    file = rank_files(nxdt)["model/dp_rank_00_tp_rank_01_pp_rank_01.pt"]
    assert same(dict(loaded.stream(source=hf, tp=1, pp=1)), file)
