"""What binding and running refuse, what a stopped run leaves behind, and what equal copies mean."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ckptc.runtime.binding.bind import bind
from ckptc.runtime.engine import engine
from ckptc.runtime.engine.schedule import schedule
from ckptc.runtime.fault import Fault
from ckptc.runtime.files.window import Entry
from ckptc.runtime.plan.plan import Loop, Over, Plan, Step, Stored

from .random_plans import box, side
from .test_engine import Raw, llama, put


def ranked() -> Plan:
    """Per-rank files with a norm on both ranks, which must be equal."""
    source = (
        Stored("norm", "model/tp{tp:02}.pt", ("tp",), (box((2,)),), (300,)),
        Stored("w", "model/tp{tp:02}.pt", ("tp",), (box((2,)),), (4, 6)),
    )
    target = (Stored("norm", "", (), (box(()),), (300,)), Stored("w", "", (), (box(()),), (8, 6)))
    steps = (
        Step(0, 0, (0,), (), (), 0, 0, (Loop(300, 1, 1),), "range"),
        Step(1, 1, (0,), (), (Over(2, (1,), (), 0, 24),), 0, 0, (Loop(24, 1, 1),), "range"),
    )
    checks = (Step(0, 0, (0,), (1,), (), 0, 0, (Loop(300, 1, 1),), "range", origin="m.ckmap:7"),)
    return Plan("m", replace(side(source), ranks=(("tp", 2),)), side(target), steps, checks)


def rank_files(folder: Path, plan: Plan, dtype: str = "float32") -> Raw:
    """The raw checkpoint, its entries dealt to one file per rank, opened at the inner folder."""
    raw, _ = put(folder, plan, [dtype] * len(plan.source.stored))
    names = ["norm", "norm", "w", "w"]
    entries = tuple(
        Entry(name, f"tp{i % 2:02}.pt", entry.window) for i, (name, entry) in enumerate(zip(names, raw.entries, strict=True))
    )
    return replace(raw, entries=entries)


def test_absent_and_unmapped_tensors_are_named_with_what_is_near(tmp_path: Path) -> None:
    plan = llama()
    raw, _ = put(tmp_path, plan, ["uint16"] * 3)
    first = raw.entries[0]
    renamed = replace(raw, entries=(replace(first, name="layers.0.upp"), *raw.entries[1:]))
    with pytest.raises(Fault, match="missing-tensor") as caught:
        bind(plan, renamed)
    assert any("near `layers.0.upp`" in note for note in caught.value.notes)
    more = replace(raw, entries=(*raw.entries, replace(first, name="layers.0.rotary.inv_freq")))
    with pytest.raises(Fault, match=r"unknown-tensor.*1 tensor "):
        bind(plan, more)
    bind(replace(plan, source=replace(plan.source, ignored=("layers.{layer}.rotary.inv_freq",))), more)
    others = replace(plan.source.stored[0], others=("layers.{layer}.upp",))
    bind(replace(plan, source=replace(plan.source, stored=(others, *plan.source.stored[1:]))), renamed)


def test_wrong_shapes_short_files_and_mixed_dtypes_are_refused(tmp_path: Path) -> None:
    plan = llama()
    raw, _ = put(tmp_path, plan, ["uint16"] * 3)
    first = raw.entries[0]
    shaped = replace(first, window=replace(first.window, shape=(64, 96), strides=(96, 1)))
    with pytest.raises(Fault, match="wrong-shape"):
        bind(plan, replace(raw, entries=(shaped, *raw.entries[1:])))
    far = replace(first, window=replace(first.window, at=10**9))
    with pytest.raises(Fault, match="truncated-file"):
        bind(plan, replace(raw, entries=(far, *raw.entries[1:])))
    (tmp_path / "b").mkdir()
    ranks = rank_files(tmp_path / "b", ranked())
    last = ranks.entries[-1]
    mixed = replace(ranks, entries=(*ranks.entries[:-1], replace(last, window=replace(last.window, dtype="float16"))))
    with pytest.raises(Fault, match="mixed-dtypes"):
        bind(ranked(), mixed)
    assert {t.dtype for t in bind(ranked(), mixed, dtype="bfloat16").tensors} == {"bfloat16"}


def test_rank_files_must_fit_the_degrees(tmp_path: Path) -> None:
    plan = ranked()
    raw = rank_files(tmp_path, plan)
    bind(plan, raw)
    with pytest.raises(Fault, match="missing-file") as caught:
        bind(plan, replace(raw, entries=tuple(e for e in raw.entries if e.file == "tp00.pt")))
    assert caught.value.help == "use tp = 1"
    extra = tuple(replace(e, file="tp02.pt") for e in raw.entries[:1])
    with pytest.raises(Fault, match="extra-file") as caught:
        bind(plan, replace(raw, entries=(*raw.entries, *extra)))
    assert caught.value.help == "use tp = 3"


def test_declared_copies_must_be_equal(tmp_path: Path) -> None:
    plan = ranked()
    (tmp_path / "in").mkdir()
    raw = rank_files(tmp_path / "in", plan)
    one, two = raw.entries[:2]
    data = np.arange(300, dtype=np.float32)
    for entry in (one, two):
        with open(entry.window.path, "r+b") as file:
            file.seek(entry.window.at)
            file.write(data.tobytes())
            data[123] += 2.5 if entry is one else 0
    bound = bind(plan, raw)
    with pytest.raises(Fault, match="copies-differ") as caught:
        engine.run(bound, tmp_path / "out", memory=4000)
    assert "element 123" in caught.value.notes[0]
    assert "2.5" in caught.value.notes[1]
    assert os.listdir(tmp_path) == ["in"]
    engine.run(bound, tmp_path / "out", memory=4000, check_copies=False)
    with open(two.window.path, "r+b") as file:
        file.seek(two.window.at)
        file.write(np.arange(300, dtype=np.float32).tobytes())
    with pytest.raises(Fault, match="source-changed"):
        engine.run(bound, tmp_path / "out", memory=4000, overwrite=True)
    engine.run(bind(plan, raw), tmp_path / "out", memory=4000, overwrite=True)


def test_a_large_plan_is_few_recipes_and_few_tasks(tmp_path: Path) -> None:
    layers, experts = 60, 256
    source = (Stored("l.{layer}.e.{expert}.w", "", ("layer", "expert"), (box((layers, experts)),), (4, 6)),)
    target = (
        Stored("{layer}.{expert}", "r{tp}.pt", ("tp", "layer", "expert"), (box((2, layers, experts)),), (2, 6)),
    )
    over = (Over(2, (0, 0), (1, 0, 0), 12), Over(layers, (1, 0), (0, 1, 0)), Over(experts, (0, 1), (0, 0, 1)))
    plan = Plan("m", side(source), side(target, "pt"), (Step(0, 0, (0, 0), (0, 0, 0), over, 0, 0, (Loop(12, 1, 1),), "range"),))
    (tmp_path / "in").mkdir()
    raw, _ = put(tmp_path / "in", plan, ["uint16"])
    bound = bind(plan, raw)
    assert len(bound.tensors) == 30720
    tasks = schedule(bound, 512 << 20, 2).tasks
    assert len(tasks) == -(-15360 // 256)
    assert len({id(job.recipe) for task in tasks for job, _, _ in task.items}) == 1
    engine.run(bound, tmp_path / "out")


STOPPED = """
import os, sys, time
from pathlib import Path
import tests.runtime.test_engine as t
from ckptc.runtime.engine import engine
from ckptc.runtime.engine import target_files as writing
from ckptc.runtime.binding.bind import bind
root = Path(sys.argv[1])
(root / "in").mkdir()
plan = t.llama(layers=64, hidden=512, wide=1024)
raw, _ = t.put(root / "in", plan, ["uint16"] * 3)
real = os.pwritev
def slow(*args):
    print("writing", flush=True)
    time.sleep(0.05)
    return real(*args)
writing.os.pwritev = slow
engine.run(bind(plan, raw), root / "out", memory=400_000)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_run_leaves_nothing(tmp_path: Path, number: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in said
    assert os.listdir(tmp_path) == ["in"]


def test_the_engine_needs_neither_torch_nor_numba_to_move_ranges() -> None:
    text = "import sys, ckptc.runtime.engine.engine; print([m for m in ('torch', 'numba') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout == "[]\n"
