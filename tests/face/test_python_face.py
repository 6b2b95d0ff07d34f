"""The Python face as people use it: a checkpoint as a mapping, exceptions by their builtin kinds, dtypes, progress, settings."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import ckptc
from ckptc.runtime.progress import Progress


def test_an_open_checkpoint_is_a_mapping_of_names_to_tensors(llama):
    checkpoint = ckptc.open(llama)
    name = "model.layers.3.mlp.down_proj.weight"
    assert name in checkpoint
    assert "model.layers.3.mlp.down" not in checkpoint
    assert (checkpoint[name].file, name) in checkpoint
    assert ("elsewhere", name) not in checkpoint
    assert checkpoint[name] in checkpoint
    assert set(checkpoint.keys()) == {tensor.name for tensor in checkpoint} == set(dict(checkpoint))
    assert torch.equal(dict(checkpoint)[name].read(), checkpoint[checkpoint[name].file, name].read())


def test_rank_files_have_tensors_of_one_name_and_iterating_gives_each(llama):
    ckptc.convert(llama, "out", to="nxdt", tp=2)
    checkpoint = ckptc.open("out")
    assert len(checkpoint.keys()) * 2 == len(checkpoint) == len(list(checkpoint))
    name = "model.embed_tokens.weight"
    with pytest.raises(ckptc.Error, match="in 2 files") as several:
        checkpoint[name]
    assert not isinstance(several.value, KeyError)
    whole = ckptc.open(llama)[name].read()
    halves = [checkpoint[f"model/dp_rank_00_tp_rank_0{rank}_pp_rank_00.pt", name] for rank in (0, 1)]
    assert torch.equal(torch.cat([half.read() for half in halves]), whole)


def test_reprs_are_one_short_line(llama):
    checkpoint = ckptc.open(llama)
    assert repr(checkpoint) == f"<Checkpoint {llama}: safetensors, 48 tensors in 3 files>"
    assert repr(checkpoint["model.norm.weight"]).startswith("<Tensor model.norm.weight bfloat16 [")
    said = repr(ckptc.plan(llama, to="nxdt", tp=2))
    assert said.startswith(f"<Plan hf to nxdt of {llama}: 48 tensors to ")
    assert "\n" not in said


INDICES = [3, -1, slice(1, 4), slice(5, 2), slice(None, None, 3), (2, 5), (slice(2, 5), slice(1, 8, 2)), (..., 3), (4, ...), ..., (slice(1, 3), ..., slice(2, 4)), (1, 2, 3)]


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_a_part_of_a_tensor_is_what_torch_takes_of_it(index, tmp_path):
    whole = torch.arange(6 * 9 * 5).reshape(6, 9, 5).float()
    save_file({"other": torch.ones(7), "w": whole}, tmp_path / "a.safetensors")
    torch.save({"w": whole.permute(2, 0, 1).contiguous().permute(1, 2, 0)}, tmp_path / "b.pt")  # strided
    for name in ("a.safetensors", "b.pt"):
        part = ckptc.open(tmp_path / name)["w"][index]
        assert torch.equal(part, whole[index])
        assert part.is_contiguous()


def test_a_part_of_a_tensor_in_tiles_is_put_together(tmp_path, llama):
    ckptc.convert(llama, "zarr", to="nemo-dist", format="zarr")
    tiled = [tensor for tensor in ckptc.open("zarr") if tensor.entry.window.tiles]
    assert len(tiled) == 6  # all that is stacked over layers
    for tensor in tiled:
        whole = tensor.read()
        assert torch.equal(tensor[1:4, 2:], whole[1:4, 2:])
        assert torch.equal(tensor[-1], whole[-1])


def test_of_whole_rows_no_other_byte_is_read(tmp_path, monkeypatch):
    save_file({"w": torch.arange(11 * 7).reshape(11, 7).short()}, tmp_path / "a.safetensors")
    tensor, read = ckptc.open(tmp_path)["w"], []
    real = os.preadv
    monkeypatch.setattr(os, "preadv", lambda fd, views, at: (read.append((at - tensor.entry.window.at, sum(map(len, views)))), real(fd, views, at))[1])
    assert tensor[3:5].tolist() == [list(range(21, 28)), list(range(28, 35))]
    assert read == [(3 * 7 * 2, 2 * 7 * 2)]


@pytest.mark.parametrize("index", [6, -7, (0, 0, 0, 0), slice(None, None, -1), "w", (..., ...), True])
def test_a_part_that_there_is_not_is_an_index_error(index, tmp_path):
    save_file({"w": torch.zeros(6, 9, 5)}, tmp_path / "a.safetensors")
    with pytest.raises(IndexError, match=r"`w` has the shape \[6, 9, 5\]") as error:
        ckptc.open(tmp_path)["w"][index]
    assert isinstance(error.value, ckptc.Error)


def test_what_is_raised_is_of_the_builtin_kind_too(llama):
    with pytest.raises(KeyError, match=r"did you mean `lm_head\.weight`") as missing:
        ckptc.open(llama)["lm_hed.weight"]
    with pytest.raises(KeyError, match=r"did you mean `lm_head\.weight`"):
        ckptc.plan(llama, to="nxdt").explain("lm_hed.weight")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        ckptc.open("./nowhere")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json"):
        ckptc.plan(llama, to="nxdt", config="nowhere.json")
    ckptc.convert(llama, "out", to="nxdt")
    with pytest.raises(FileExistsError) as there:
        ckptc.convert(llama, "out", to="nxdt")
    with pytest.raises(ckptc.Error) as refused:
        ckptc.plan(llama, to="nxdt", tp=3)
    assert [type(e.value).__mro__[1] for e in (missing, there)] == [ckptc.Fault, ckptc.Fault]
    assert isinstance(refused.value, ckptc.MappingError)
    assert all(issubclass(kind, ckptc.Error) for kind in (ckptc.Fault, ckptc.MappingError))


def test_the_text_of_an_error_is_its_whole_diagnostic(llama):
    with pytest.raises(ckptc.Error) as error:
        ckptc.plan(llama, to="nxdt", tp=3)
    first, *rest = str(error.value).splitlines()
    d = error.value.diagnostics[0]
    assert first == f"error[{d.code}]: {d.title}"
    assert all(any(note in line for line in rest) for note in d.notes)
    assert any(line.startswith(" --> ") and ".ckmap:" in line for line in rest)
    assert f"  = help: {d.help}" in rest
    Path("there").mkdir()
    Path("there/x").touch()
    with pytest.raises(ckptc.Error) as error:
        ckptc.convert(llama, "there", to="nxdt")
    assert str(error.value).splitlines()[1] == "  = help: use --overwrite, or another place"


@pytest.mark.parametrize("code", ["missing-tensor", "missing-file", "destination-exists", "no-such-index", "bad-size"])
def test_a_fault_survives_a_process_boundary(code):
    fault = ckptc.Fault(code, "it is so", notes=("a", "b"), help="do this")
    again = pickle.loads(pickle.dumps(fault))
    assert (type(again), again.code, again.title, again.notes, again.help) == (type(fault), code, "it is so", ("a", "b"), "do this")
    assert str(again) == str(fault)


@pytest.mark.parametrize("dtype", [torch.float16, "float16", "fp16", "torch.float16", "half"])
def test_a_dtype_is_a_name_or_torchs_own(dtype, llama):
    assert ckptc.plan(llama, to="hf", dtype=dtype).data.dtype == "float16"
    with pytest.raises(ckptc.Error, match=r"cannot be cast to `torch\.int8`"):
        ckptc.plan(llama, to="hf", dtype=torch.int8)


def test_progress_is_shown_or_told(llama, capfd, monkeypatch):
    """The engine tells as often as it comes to it, which for a small checkpoint may be never: so it is told here what to tell."""
    now = Progress("write", 3, 9, 1 << 20, 2.0)
    monkeypatch.setattr("ckptc.runtime.engine.engine.run", lambda bound, out, progress, **more: progress and progress(now))
    monkeypatch.setattr("ckptc.meter.Meter.__init__.__defaults__", (True, 0.0))
    plan = ckptc.plan(llama, to="nxdt")
    plan.run("a", progress=True)
    assert capfd.readouterr().err.startswith("writing: 3 bytes of 9 bytes")
    told = []
    plan.run("b", progress=told.append)
    for nothing in (None, False):
        plan.run("c", progress=nothing)
    assert told == [now]
    assert capfd.readouterr().err == ""


def test_the_sources_settings_have_a_name_of_their_own(llama):
    ckptc.convert(llama, "out", to="nxdt", tp=4, settings={"kv_multiplier": 2})
    plan = ckptc.plan("out", to="hf", config=llama / "config.json", from_settings={"kv_multiplier": 2, "hw": "trn1"})
    assert dict(plan.data.source.params)["kv_multiplier"] == 2
    assert dict(plan.data.source.params)["hw"] == "trn1"
