"""Few open files, empty tensors, side files, durable writes, what killed runs leave, and many equal copies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ckptc.runtime.binding.bind import bind
from ckptc.runtime.engine import destination, engine, workers
from ckptc.runtime.fault import Fault
from ckptc.runtime.files import crc
from ckptc.runtime.files.window import Entry, SideFile
from ckptc.runtime.plan.plan import Loop, Over, Plan, Step, Stored

from .random_plans import box, side
from .reference_plan import execute
from .test_engine import Raw, llama, put, written

FEW_FILES = """
import resource, sys
from pathlib import Path
import tests.runtime.test_engine as t
from ckptc.runtime.engine import engine
from ckptc.runtime.binding.bind import bind
from tests.runtime.reference_plan import execute
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
root = Path(sys.argv[1])
(root / "in").mkdir()
plan = t.llama(layers=3, tp=128, hidden=128, wide=128)
raw, values = t.put(root / "in", plan, ["uint16"] * 3)
bound = bind(plan, raw)
engine.run(bound, root / "out", memory=int(sys.argv[2]), workers=2)
print(len(bound.files), t.written(bound, root / "out") == execute(plan, values))
"""


@pytest.mark.parametrize("memory", [20_000, 64 << 20])
def test_more_files_than_may_be_open(tmp_path: Path, memory: int) -> None:
    command = [sys.executable, "-c", FEW_FILES, str(tmp_path), str(memory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "128 True\n", done.stderr


def test_more_sources_than_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "room", lambda wanted: 1)
    (tmp_path / "in").mkdir()
    plan = llama()
    raw, values = put(tmp_path / "in", plan, ["uint16"] * 3)
    entries = []
    for i, entry in enumerate(raw.entries):
        path = f"{entry.window.path}.{i}"
        shutil.copy(entry.window.path, path)
        entries.append(replace(entry, window=replace(entry.window, path=path)))
    bound = bind(plan, replace(raw, entries=tuple(entries)))
    engine.run(bound, tmp_path / "out", memory=20_000)
    assert written(bound, tmp_path / "out") == execute(plan, values)


@pytest.mark.parametrize("format", ["pt", "safetensors"])
@pytest.mark.parametrize("stepped", [True, False])
def test_empty_tensors(tmp_path: Path, format: str, stepped: bool) -> None:
    (tmp_path / "in").mkdir()
    source = (Stored("a", "", (), (box(()),), (0, 4)), Stored("b", "", (), (box(()),), (3,)))
    target = tuple(replace(stored, file=f"x.{format}") for stored in source)
    steps = (
        *([Step(0, 0, (), (), (), 0, 0, (Loop(0, 1, 1),), "range")] if stepped else []),
        Step(1, 1, (), (), (), 0, 0, (Loop(3, 1, 1),), "range"),
    )
    checks = (Step(0, 0, (), (), (), 0, 0, (Loop(0, 1, 1),), "range"),)
    plan = Plan("m", side(source), side(target, format), steps, checks)
    raw, values = put(tmp_path / "in", plan, ["float32"] * 2)
    bound = bind(plan, raw)
    engine.run(bound, tmp_path / "out")
    assert written(bound, tmp_path / "out")[1, ()] == values[1, ()]
    assert [len(data) for _, _, _, data in engine.stream(bound)] == [0, 12]
    only = Plan("m", side(source[:1]), side(target[:1], format), steps[:1] if stepped else ())
    alone = bind(only, replace(raw, entries=raw.entries[:1]))
    report = engine.run(alone, tmp_path / "alone")
    assert report.bytes_written == (tmp_path / f"alone/x.{format}").stat().st_size


def test_side_files_are_carried_byte_for_byte(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    plan = llama()
    plan = replace(plan, target=replace(plan.target, carry=("tokenizer*",)))
    raw, _ = put(tmp_path / "in", plan, ["uint16"] * 3)
    (tmp_path / "in/tokenizer.model").write_bytes(bytes(range(256)))
    raw = replace(raw, beside=(SideFile("tokenizer.model", str(tmp_path / "in/tokenizer.model"), 0, 256),))
    bound = bind(plan, raw)
    engine.run(bound, tmp_path / "out")
    assert (tmp_path / "out/tokenizer.model").read_bytes() == bytes(range(256))
    (tmp_path / "in/tokenizer.model").unlink()
    with pytest.raises(Fault, match=r"source-changed.*in/tokenizer.model.*it is gone"):
        engine.run(bound, tmp_path / "out", overwrite=True)
    with pytest.raises(Fault, match=r"missing-file.*in/tokenizer.model"):
        bind(plan, raw)
    assert (tmp_path / "out/tokenizer.model").exists()


@pytest.mark.parametrize("merge", [False, True])
def test_durable_syncs_each_file_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, merge: bool) -> None:
    (tmp_path / "in").mkdir()
    plan = llama()
    raw, _ = put(tmp_path / "in", plan, ["uint16"] * 3)
    synced: list[str] = []
    monkeypatch.setattr(destination.os, "fsync", lambda number: synced.append(os.readlink(f"/proc/self/fd/{number}")))
    engine.run(bind(plan, raw), tmp_path / "out", durable=True, merge=merge)
    assert {Path(path).name for path in synced} >= {"tp0.pt", "tp1.pt", "config.json"}
    assert str(tmp_path) in synced
    assert (str(tmp_path / "out") in synced) == merge


def dead() -> int:
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    return int(done.stdout)


def left_by(process: int, machine: str = "") -> str:
    return f".out.partial-{machine or os.uname().nodename}-{process}-abc"


def test_what_killed_runs_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    plan = llama()
    raw, _ = put(tmp_path / "in", plan, ["uint16"] * 3)
    gone = left_by(dead())
    kept = {left_by(os.getpid()), left_by(dead(), "elsewhere"), ".out.partial-mine", ".other" + gone.removeprefix(".out")}
    for name in {gone, *kept}:
        (tmp_path / name).mkdir()
        (tmp_path / name / "tp0.pt").write_text("half")
    engine.run(bind(plan, raw), tmp_path / "out")
    assert set(os.listdir(tmp_path)) == {"in", "out", *kept}


def test_an_old_destination_that_was_set_aside_comes_back(tmp_path: Path) -> None:
    aside = tmp_path / f"{left_by(dead())}.old"
    aside.mkdir()
    (aside / "mine").write_text("kept")
    destination.sweep(str(tmp_path / "out"))
    assert (tmp_path / "out/mine").read_text() == "kept"
    aside.mkdir()
    destination.sweep(str(tmp_path / "out"))
    assert os.listdir(tmp_path) == ["out"]


def copied(folder: Path, copies: int = 40) -> tuple[Plan, Raw]:
    """One tensor on many ranks, each compared with the first."""
    source = (Stored("w", "", ("tp",), (box((copies,)),), (300,)),)
    target = (Stored("w", "", (), (box(()),), (300,)),)
    checks = (Step(0, 0, (0,), (1,), (Over(copies - 1, (0,), (1,)),), 0, 0, (Loop(300, 1, 1),), "range"),)
    named = (replace(source[0], name="w{tp}"),)
    plan = Plan("m", side(named), side(target), (Step(0, 0, (0,), (), (), 0, 0, (Loop(300, 1, 1),), "range"),), checks)
    raw, _ = put(folder, plan, ["float32"])
    first = raw.entries[0].window
    with open(first.path, "r+b") as file:
        data = os.pread(file.fileno(), 1200, first.at)
        for entry in raw.entries:
            os.pwrite(file.fileno(), data, entry.window.at)
    return plan, raw


def test_the_first_of_many_copies_is_read_once_for_sixteen(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    plan, raw = copied(tmp_path / "in")
    said: list[Any] = []
    report = engine.run(bind(plan, raw), tmp_path / "out", memory=100_000, workers=2, progress=said.append)
    assert report.bytes_compared == 1200 * (39 + 3)
    assert report.bytes_read == report.bytes_compared + 1200
    assert all(p.done_bytes <= p.total_bytes == 1200 * 42 for p in said if p.phase == "compare")


@pytest.mark.parametrize("wrong", [1, 17, 39])
def test_any_copy_that_differs_is_named(tmp_path: Path, wrong: int) -> None:
    (tmp_path / "in").mkdir()
    plan, raw = copied(tmp_path / "in")
    entry: Entry = raw.entries[wrong]
    with open(entry.window.path, "r+b") as file:
        os.pwrite(file.fileno(), np.float32(1e9).tobytes(), entry.window.at + 4 * 299)
    with pytest.raises(Fault, match=f"`w{wrong}`") as caught:
        engine.run(bind(plan, raw), tmp_path / "out", memory=20_000, workers=3)
    assert "element 299" in caught.value.notes[0]


def test_checksums_do_without_isal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "isal", None)
    monkeypatch.setitem(sys.modules, "isal.isal_zlib", None)
    plain = crc._fastest()
    assert plain.__module__ == "zlib"
    for data in (b"", b"a", bytes(range(256)) * 999):
        assert crc.crc32(data) == plain(data)
