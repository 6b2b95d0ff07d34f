"""Plans to and from .nemo archives: what is in them, byte for byte, and that they are whole or not there."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import ckptc
from ckptc import Fault
from ckptc.main import main
from ckptc.runtime.binding.archive import bound_for
from ckptc.runtime.binding.bind import bind
from ckptc.runtime.checkpoint.checkpoint import Checkpoint
from ckptc.runtime.engine import chunk
from ckptc.runtime.engine import copy_range as in_kernel
from ckptc.runtime.engine import target_files as writing
from ckptc.runtime.engine.write_bytes import put
from ckptc.runtime.files.window import Entry, Window, row_major
from ckptc.runtime.formats.nemo.pack import tar_header
from ckptc.runtime.formats.nemo.tar_members import read_members
from tests.asked import asked
from tests.held import files_of

MAPPING = """
model net {
  axes { vocab layer hidden ffn }
  embed [vocab, hidden]
  gate  [layer, ffn, hidden]
  down  [layer, hidden, ffn]
  norm  [hidden]
}

layout hf of net {
  config "config.json" {
    vocab  = .vocab_size
    layer  = .num_layers
    hidden = .hidden_size
    ffn    = .ffn_size
  }
  carry "tokenizer*" "*.model"
  "embed"        = embed [vocab, hidden]
  "gate.{layer}" = gate [ffn, hidden]
  "down.{layer}" = down [hidden, ffn]
  "norm"         = norm [hidden]
}

layout nemo of net (rank tp = 1, rank pp = 1) {
  files "tp_rank_{tp:02}_pp_rank_{pp:03}/model_weights.ckpt" when pp > 1, "mp_rank_{tp:02}/model_weights.ckpt" when tp > 1, "model_weights.ckpt"
  format nemo | pt
  config "model_config.yaml" template "net.yaml.j2" {
    vocab  = .vocab_size
    layer  = .num_layers
    hidden = .hidden_size
    ffn    = .ffn_hidden_size
  }
  carry "tokenizer.model" "vocab.json"
  stages layer over pp
  "model.embed"             = embed [pad(vocab, 4 * tp)/tp, hidden]  on first
  "model.gate.{layer/pp}"   = gate [ffn/tp, hidden]
  "model.down.{layer/pp}"   = down [hidden, ffn/tp]
  "model.norm"              = norm [hidden]  on last
}
"""
TEMPLATE = """precision: bf16
tensor_model_parallel_size: {{ tp }}
tokenizer:
  library: sentencepiece  # or another
  model: null
  vocab_file:
  merge_file: null
pipeline_model_parallel_size: 1
"""
VOCAB, LAYERS, HIDDEN, FFN = 26, 4, 10, 12
PIECES = bytes(range(256)) * 11
NUMBERED = f"{hashlib.sha256(PIECES).hexdigest()[:32]}_tokenizer.model"
RANKS: dict[tuple[int, int], list[str]] = {
    (1, 1): ["."],
    (2, 1): ["mp_rank_00", "mp_rank_01"],
    (2, 2): ["tp_rank_00_pp_rank_000", "tp_rank_00_pp_rank_001", "tp_rank_01_pp_rank_000", "tp_rank_01_pp_rank_001"],
    (1, 2): ["tp_rank_00_pp_rank_000", "tp_rank_00_pp_rank_001"],
}


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/net.ckmap").write_text(MAPPING)
    (tmp_path / "own/net.yaml.j2").write_text(TEMPLATE)
    return tmp_path / "own/net.ckmap"


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    held = {"embed": torch.randn(VOCAB, HIDDEN), "norm": torch.randn(HIDDEN)}
    for i in range(LAYERS):
        held |= {f"gate.{i}": torch.randn(FFN, HIDDEN), f"down.{i}": torch.randn(HIDDEN, FFN)}
    (tmp_path / "hf").mkdir()
    save_file({name: tensor.bfloat16() for name, tensor in held.items()}, tmp_path / "hf/model.safetensors")
    keys = {"vocab_size": VOCAB, "num_layers": LAYERS, "hidden_size": HIDDEN, "ffn_size": FFN}
    (tmp_path / "hf/config.json").write_text(json.dumps(keys))
    (tmp_path / "hf/tokenizer.model").write_bytes(PIECES)
    (tmp_path / "hf/README.md").write_text("stays")
    return tmp_path / "hf"


def members(path: Path) -> dict[str, bytes | None]:
    """By the standard library: every member in order, with its bytes, or None for a folder."""
    with tarfile.open(path, "r:") as archive:
        out: dict[str, bytes | None] = {}
        for info in archive:
            assert (info.uid, info.gid, info.uname, info.gname, info.mtime) == (0, 0, "", "", 0)
            assert info.mode == (0o755 if info.isdir() else 0o644)
            assert info.isdir() or info.isreg()
            file = archive.extractfile(info)
            out[info.name] = file.read() if file else None
        return out


@pytest.mark.parametrize(("tp", "pp"), RANKS)
def test_an_archive_holds_what_the_folder_holds(tp: int, pp: int, hf: Path, mapping: Path, tmp_path: Path) -> None:
    plan = ckptc.plan(hf, to="nemo", mapping=mapping, tp=tp, pp=pp)
    totals = plan.totals(dst=tmp_path / "x.nemo")
    report = plan.run(tmp_path / "x.nemo", memory=30_000)
    plan.run(tmp_path / "folder")
    held = members(tmp_path / "x.nemo")
    weights = ["model_weights.ckpt" if rank == "." else f"{rank}/model_weights.ckpt" for rank in RANKS[tp, pp]]
    folders = [] if RANKS[tp, pp] == ["."] else RANKS[tp, pp]
    wanted = [".", f"./{NUMBERED}", "./model_config.yaml", *(f"./{name}" for name in sorted([*folders, *weights]))]
    assert list(held) == wanted
    assert {k.removeprefix("./"): v for k, v in held.items() if v is not None} == files_of(tmp_path / "folder")
    size = (tmp_path / "x.nemo").stat().st_size
    assert (report.bytes_written, totals.bytes_written, totals.disk_bytes) == (size, size, size)
    assert (report.files, totals.files) == (("x.nemo",), 1)
    assert size % tarfile.RECORDSIZE == 0
    assert held[f"./{NUMBERED}"] == PIECES
    config = yaml.safe_load(held["./model_config.yaml"] or b"")
    assert config["tokenizer"] == {"library": "sentencepiece", "model": f"nemo:{NUMBERED}", "vocab_file": None, "merge_file": None}
    assert (config["num_layers"], config["tensor_model_parallel_size"]) == (LAYERS, tp)
    source = load_file(hf / "model.safetensors")
    for name in weights:
        loaded = torch.load(io.BytesIO(held[f"./{name}"] or b""), weights_only=True)
        rank = [int(part) for part in name.split("/")[0].split("_") if part.isdigit()] if "/" in name else [0]
        at, stage = rank[0], rank[1] if len(rank) > 1 else 0
        for i in range(LAYERS // pp):
            gate, down = source[f"gate.{stage * LAYERS // pp + i}"], source[f"down.{stage * LAYERS // pp + i}"]
            assert torch.equal(loaded.pop(f"model.gate.{i}"), gate.chunk(tp, 0)[at])
            assert torch.equal(loaded.pop(f"model.down.{i}"), down.chunk(tp, 1)[at])
        if stage == 0:
            padded = torch.cat([source["embed"], torch.zeros(-VOCAB % (4 * tp), HIDDEN).bfloat16()])
            assert torch.equal(loaded.pop("model.embed"), padded.chunk(tp, 0)[at])
        if stage == pp - 1:
            assert torch.equal(loaded.pop("model.norm"), source["norm"])
        assert not loaded


@pytest.mark.parametrize("memory", [3_000, 64 << 20])
@pytest.mark.parametrize(("tp", "pp"), RANKS)
def test_archives_are_read_again_and_go_back(tp: int, pp: int, memory: int, hf: Path, mapping: Path, tmp_path: Path) -> None:
    ckptc.convert(hf, tmp_path / "x.nemo", to="nemo", mapping=mapping, tp=tp, pp=pp)
    opened = ckptc.open(tmp_path / "x.nemo")
    assert opened.format == "nemo"
    assert opened.artifact("tokenizer.model") == PIECES
    plan = ckptc.plan(tmp_path / "x.nemo", to="hf", mapping=mapping)
    assert dict(plan.data.source.ranks) == {"tp": tp, "pp": pp}
    report = plan.run(tmp_path / "back", memory=2 * memory, workers=2)
    assert report.peak_buffer_bytes <= 2 * memory
    back, was = load_file(tmp_path / "back/model.safetensors"), load_file(hf / "model.safetensors")
    assert back.keys() == was.keys()
    assert all(torch.equal(back[name], was[name]) for name in was)
    assert (tmp_path / "back/tokenizer.model").read_bytes() == PIECES
    assert set(files_of(tmp_path / "back")) == {"config.json", "model.safetensors", "tokenizer.model"}


def test_degrees_change_from_archive_to_archive(hf: Path, mapping: Path, tmp_path: Path) -> None:
    """Direct, and through the interchange layout: one and the same, with the artifact's name kept."""
    ckptc.convert(hf, tmp_path / "a.nemo", to="nemo", mapping=mapping, tp=2, pp=2)
    ckptc.convert(tmp_path / "a.nemo", tmp_path / "b.nemo", to="nemo", from_="nemo", mapping=mapping, tp=3, pp=1)
    ckptc.convert(hf, tmp_path / "c.nemo", to="nemo", mapping=mapping, tp=3)
    direct, through = members(tmp_path / "b.nemo"), members(tmp_path / "c.nemo")
    kept = direct.pop("./model_config.yaml"), through.pop("./model_config.yaml")
    assert direct == through
    assert yaml.safe_load(kept[0] or b"")["tokenizer"] == yaml.safe_load(kept[1] or b"")["tokenizer"]


def test_the_configs_degrees_are_those_of_the_files(hf: Path, mapping: Path, tmp_path: Path) -> None:
    ckptc.convert(hf, tmp_path / "a.nemo", to="nemo", mapping=mapping, tp=2, pp=2)
    text = members(tmp_path / "a.nemo")["./model_config.yaml"] or b""
    assert b"\npipeline_model_parallel_size: 2\n" in text
    ckptc.convert(tmp_path / "a.nemo", tmp_path / "b.nemo", to="nemo", mapping=mapping, tp=1)
    changed = text.replace(b"tensor_model_parallel_size: 2", b"tensor_model_parallel_size: 1")
    assert members(tmp_path / "b.nemo")["./model_config.yaml"] == changed


@pytest.mark.parametrize("stored", ["in the file", "beside it", "in part"])
def test_a_training_run_becomes_an_archive(stored: str, hf: Path, mapping: Path, tmp_path: Path) -> None:
    ckptc.convert(hf, tmp_path / "folder", to="nemo", mapping=mapping, tp=2, pp=2)
    config = yaml.safe_load((tmp_path / "folder/model_config.yaml").read_text())
    odd = {"cfg": {**config, "trainer": Path("x")}} if stored != "in the file" else {"cfg": config}
    for file in (tmp_path / "folder").glob("*/model_weights.ckpt"):
        top = {"state_dict": torch.load(file, weights_only=True), "hyper_parameters": odd, "pytorch-lightning_version": "2.0.9"}
        torch.save(top, file.with_name("step=70.ckpt"))
        file.rename(tmp_path / file.parent.name)
    run = tmp_path / "folder/step=70.ckpt"
    for name in ("model_config.yaml", NUMBERED):
        (tmp_path / "folder" / name).rename(tmp_path / name)
    (tmp_path / "hparams.yaml").write_text(yaml.safe_dump({"cfg": config}))
    options = {} if stored == "in the file" else {"config": tmp_path / "hparams.yaml"}
    if stored == "in part":
        with pytest.raises(Fault, match="opaque-config"):
            ckptc.convert(run, tmp_path / "x.nemo", to="nemo", mapping=mapping, tp=1, pp=1)
    plan = ckptc.plan(run, to="nemo", mapping=mapping, tp=1, pp=1, **asked(**options))
    absent = f"the config's tokenizer.model is `nemo:{NUMBERED}`, a file that is not beside it and is left out"
    assert plan.notes == (() if options else (absent,))
    plan.run(tmp_path / "x.nemo")
    wanted = {**config, "tensor_model_parallel_size": 1, "pipeline_model_parallel_size": 1}
    assert yaml.safe_load(members(tmp_path / "x.nemo")["./model_config.yaml"] or b"") == wanted
    ckptc.convert(hf, tmp_path / "y.nemo", to="nemo", mapping=mapping)
    assert members(tmp_path / "x.nemo").get(f"./{NUMBERED}") == (PIECES if options else None)
    weights = "./model_weights.ckpt"
    assert members(tmp_path / "x.nemo")[weights] == members(tmp_path / "y.nemo")[weights]


def test_artifacts_that_nemo_named_keep_their_names(hf: Path, mapping: Path, tmp_path: Path) -> None:
    ckptc.convert(hf, tmp_path / "folder", to="nemo", mapping=mapping, tp=2)
    other = "0123456789abcdef0123456789abcdef_spm.model"
    (tmp_path / "folder" / NUMBERED).rename(tmp_path / "folder" / other)
    text = (tmp_path / "folder/model_config.yaml").read_text().replace(NUMBERED, other)
    (tmp_path / "folder/model_config.yaml").write_text(text)
    ckptc.convert(tmp_path / "folder", tmp_path / "x.nemo", to="nemo", mapping=mapping)
    assert members(tmp_path / "x.nemo")[f"./{other}"] == PIECES
    assert members(tmp_path / "x.nemo")["./model_config.yaml"] == text.encode()
    ckptc.convert(tmp_path / "x.nemo", tmp_path / "hf2", to="hf", mapping=mapping)
    assert (tmp_path / "hf2/spm.model").read_bytes() == PIECES


def test_the_same_input_gives_the_same_archive(hf: Path, mapping: Path, tmp_path: Path) -> None:
    for name, workers in (("a.nemo", 1), ("b.nemo", 4)):
        ckptc.convert(hf, tmp_path / name, to="nemo", mapping=mapping, tp=2, pp=2, workers=workers, memory=40_000)
    assert (tmp_path / "a.nemo").read_bytes() == (tmp_path / "b.nemo").read_bytes()


def test_a_saved_plan_and_an_emitted_module_write_archives(hf: Path, mapping: Path, tmp_path: Path) -> None:
    plan = ckptc.compile(mapping, from_="hf", to="nemo", config=hf / "config.json", tp=2)
    plan.save(tmp_path / "p.ckplan")
    ckptc.load_plan(tmp_path / "p.ckplan").run(tmp_path / "x.nemo", source=hf)
    (tmp_path / "plan.py").write_text(plan.emit())
    subprocess.run([sys.executable, tmp_path / "plan.py", hf, tmp_path / "y.nemo"], check=True, capture_output=True)
    assert (tmp_path / "x.nemo").read_bytes() == (tmp_path / "y.nemo").read_bytes()
    assert set(members(tmp_path / "x.nemo")) >= {"./tokenizer.model", "./mp_rank_01/model_weights.ckpt"}
    ckptc.convert(hf, tmp_path / "z.nemo", to="nemo", mapping=mapping, tp=2)
    back = ckptc.compile(mapping, from_="nemo", to="hf", config=hf / "config.json", from_settings={"tp": 2})
    back.run(tmp_path / "back", source=tmp_path / "z.nemo")
    assert (tmp_path / "back/tokenizer.model").read_bytes() == PIECES


def test_without_files_of_its_own_a_layout_is_one_file(hf: Path, mapping: Path, tmp_path: Path) -> None:
    lines = [line for line in MAPPING.splitlines() if not line.strip().startswith(("files", "carry"))]
    mapping.write_text("\n".join(lines).replace("(rank tp = 1, rank pp = 1)", "").replace("/tp", "").replace("* tp", "").replace("/pp", "")
                       .replace("  stages layer over pp\n", "").replace("  on first", "").replace("  on last", ""))  # fmt: skip
    (mapping.parent / "net.yaml.j2").write_text("{}\n")
    plan = ckptc.plan(hf, to="nemo", mapping=mapping)
    plan.run(tmp_path / "x.nemo", max_shard_size=500)
    assert list(members(tmp_path / "x.nemo")) == [".", "./model_config.yaml", "./model_weights.ckpt"]
    ckptc.convert(tmp_path / "x.nemo", tmp_path / "back", to="hf", mapping=mapping)
    back, was = load_file(tmp_path / "back/model.safetensors"), load_file(hf / "model.safetensors")
    assert all(torch.equal(back[name], was[name]) for name in was)


def test_artifacts_of_one_name_do_not_hide_each_other(hf: Path, mapping: Path, tmp_path: Path) -> None:
    ckptc.convert(hf, tmp_path / "folder", to="nemo", mapping=mapping)
    copy, other = "0" * 32 + "_tokenizer.model", "f" * 32 + "_tokenizer.model"
    (tmp_path / "folder" / copy).write_bytes(PIECES)
    (tmp_path / "folder" / other).write_bytes(PIECES[::-1])
    ckptc.convert(tmp_path / "folder", tmp_path / "back", to="hf", mapping=mapping)
    held = files_of(tmp_path / "back")
    assert {name: held[name] for name in held if name.endswith("tokenizer.model")} == {"tokenizer.model": PIECES, other: PIECES[::-1]}


def test_the_layout_of_an_archive_beyond_8_gib(mapping: Path, tmp_path: Path) -> None:
    """Holes for the tensors: the tar around them is laid out and read back."""
    plan = ckptc.compile(mapping, from_="hf", to="nemo", tp=2, settings={"vocab": 1 << 22, "layer": 1, "hidden": 1 << 11, "ffn": 16})
    (tmp_path / "source").touch()
    entries, at = [], 0
    for name, shape in (("embed", (1 << 22, 1 << 11)), ("gate.0", (16, 1 << 11)), ("down.0", (1 << 11, 16)), ("norm", (1 << 11,))):
        entries.append(Entry(name, "x", Window(str(tmp_path / "source"), at, shape, row_major(shape), "float32")))
        at += 4 * prod(shape)
    os.truncate(tmp_path / "source", at)
    folder = bind(plan.data, Checkpoint(str(tmp_path), "bin", tuple(entries), ()))
    bound = bound_for(folder, tmp_path / "x.nemo")
    for each in bound.puts:
        put(str(tmp_path), each)
    assert (tmp_path / "x.nemo").stat().st_size == bound.bytes_written > 32 << 30
    with tarfile.open(tmp_path / "x.nemo") as archive:
        said = {info.name: (info.offset_data, info.size) for info in archive}
    assert {m.name: (m.at, m.nbytes) for m in read_members(str(tmp_path / "x.nemo")).values()} == {
        name.removeprefix("./"): place for name, place in said.items() if name.endswith(("ckpt", "yaml"))
    }
    for was, file in zip(folder.files, bound.files, strict=True):
        assert said[f"./{was.name}"] == (file.at, file.layout.size)
        assert file.layout.size > 16 << 30


def test_what_a_killed_run_set_aside_comes_back(hf: Path, mapping: Path, tmp_path: Path) -> None:
    left = tmp_path / f".x.nemo.partial-{os.uname().nodename}-{2**30}-abc"
    left.mkdir()
    (left / "x.nemo").write_bytes(b"half")
    left.with_name(left.name + ".old").write_bytes(b"before")
    with pytest.raises(Fault, match="destination-exists"):
        ckptc.convert(hf, tmp_path / "x.nemo", to="nemo", mapping=mapping)
    assert (tmp_path / "x.nemo").read_bytes() == b"before"
    assert sorted(os.listdir(tmp_path)) == ["hf", "own", "x.nemo"]


def shell(*words: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_the_command_line_writes_and_reads_archives(hf: Path, mapping: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    there, back = ["--mapping", mapping, "--quiet"], ["--mapping", mapping, "--json"]
    assert shell("convert", hf, tmp_path / "x.nemo", "--to", "nemo", "--tp", 2, *there) == 0
    assert shell("convert", tmp_path / "x.nemo", tmp_path / "y.nemo", "--to", "nemo", "--dry-run", *back) == 0
    said = json.loads(capfd.readouterr().out)
    assert said["totals"]["bytes_written"] == (tmp_path / "x.nemo").stat().st_size
    assert said["totals"]["files"] == 1
    assert not (tmp_path / "y.nemo").exists()
    assert shell("convert", hf, tmp_path / "x.nemo", "--to", "nemo", *there) == 1
    assert "destination-exists" in capfd.readouterr().err
    assert shell("convert", hf, tmp_path / "x.nemo", "--to", "nemo", "--overwrite", *there) == 0
    assert "./model_weights.ckpt" in members(tmp_path / "x.nemo")
    assert shell("convert", hf, tmp_path / "z.nemo", "--to", "nemo", "--merge", *there) == 1
    assert "not-merged" in capfd.readouterr().err
    for options in (["--to", "hf"], ["--to", "nemo", "--format", "pt"]):
        assert shell("convert", hf, tmp_path / "z.nemo", *options, *there) == 1
        assert "not-an-archive" in capfd.readouterr().err
    assert shell("convert", hf, tmp_path / "pt", "--to", "nemo", "--format", "pt", *there) == 0
    assert (tmp_path / "pt/model_weights.ckpt").is_file()
    assert sorted(os.listdir(tmp_path)) == ["hf", "own", "pt", "x.nemo"]


@pytest.mark.parametrize("taken", [False, True])
def test_a_run_that_fails_leaves_what_was_there(taken: bool, hf: Path, mapping: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if taken:
        (tmp_path / "x.nemo").write_bytes(b"before")
    calls = 0
    real = os.pwritev

    def fail(*args: Any) -> int:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError(28, "No space left on device")
        return real(*args)

    monkeypatch.setattr(writing.os, "pwritev", fail)
    with pytest.raises(Fault, match="disk-full"):
        ckptc.convert(hf, tmp_path / "x.nemo", to="nemo", mapping=mapping, tp=2, overwrite=taken, memory=3_000)
    assert sorted(os.listdir(tmp_path)) == ["hf", "own", *(["x.nemo"] if taken else [])]
    assert not taken or (tmp_path / "x.nemo").read_bytes() == b"before"


def test_an_interrupted_run_leaves_nothing(hf: Path, mapping: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(writing.Targets, "write", stop)
    with pytest.raises(KeyboardInterrupt):
        ckptc.convert(hf, tmp_path / "x.nemo", to="nemo", mapping=mapping, tp=2)
    assert sorted(os.listdir(tmp_path)) == ["hf", "own"]


def test_the_source_is_not_written_over(hf: Path, mapping: Path, tmp_path: Path) -> None:
    ckptc.convert(hf, tmp_path / "x.nemo", to="nemo", mapping=mapping, tp=2)
    with pytest.raises(Fault, match="source-in-destination"):
        ckptc.convert(tmp_path / "x.nemo", tmp_path / "x.nemo", to="nemo", mapping=mapping, tp=1, overwrite=True)


def test_long_runs_of_an_archive_are_copied_in_the_kernel(hf: Path, mapping: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ckptc.convert(hf, tmp_path / "x.nemo", to="nemo", mapping=mapping, pp=2)
    monkeypatch.setattr(chunk, "LONG_BYTES", 64)
    monkeypatch.setattr(in_kernel, "copies_itself", lambda number: 1)  # as a file server does
    copied: list[int] = []
    real: Callable[..., int] = in_kernel.os.copy_file_range

    def count(*args: Any) -> int:
        copied.append(real(*args))
        return copied[-1]

    monkeypatch.setattr(in_kernel.os, "copy_file_range", count)
    ckptc.convert(tmp_path / "x.nemo", tmp_path / "back", to="hf", mapping=mapping)
    assert sum(copied) == 2 * HIDDEN * FFN * 2 * LAYERS + 2 * VOCAB * HIDDEN
    back, was = load_file(tmp_path / "back/model.safetensors"), load_file(hf / "model.safetensors")
    assert all(torch.equal(back[name], was[name]) for name in was)


def test_a_config_within_an_archive_can_be_named(hf: Path, mapping: Path, tmp_path: Path) -> None:
    ckptc.convert(hf, tmp_path / "x.nemo", to="nemo", mapping=mapping, tp=2)
    (tmp_path / "hf/config.json").unlink()
    for config in (tmp_path / "x.nemo", tmp_path / "x.nemo/model_config.yaml"):
        plan = ckptc.plan(hf, to="nemo", mapping=mapping, tp=2, config=config)
        assert dict(plan.data.axes)["ffn"] == FFN
        assert dict(plan.data.files)["model_config.yaml"].encode() == members(tmp_path / "x.nemo")["./model_config.yaml"]


@pytest.mark.parametrize("size", [8 << 30, (8 << 30) - 1, 5 << 40])
def test_headers_of_any_size_are_those_that_tarfile_reads(size: int) -> None:
    header = tar_header("mp_rank_00/model_weights.ckpt", size)
    assert len(header) == (1536 if size >= 8 << 30 else 512)
    with tarfile.open(fileobj=io.BytesIO(header + bytes(1024)), mode="r|") as archive:
        first = archive.next()
        assert first is not None
        assert (first.name, first.size) == ("./mp_rank_00/model_weights.ckpt", size)
