"""What a run costs, counted and not timed: bytes that pass through this process, calls of the system, calls of Python."""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ckptc.runtime.binding.bind import Bound, bind
from ckptc.runtime.engine import copy_range, engine, fill, schedule
from ckptc.runtime.files.window import Entry, Window, row_major
from ckptc.runtime.plan.plan import Loop, Over, Plan, Step, Stored

from .random_plans import box, side
from .test_engine import Raw, put

ROWS, WIDE = 520, 2048  # of one tensor: 2.1 MB as uint16


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system of the tests is said to be one that copies nothing by itself."""
    monkeypatch.setattr(copy_range, "copies_itself", lambda number: 0)


def renamed(layers: int, format: str) -> Plan:
    """Every tensor under another name, in one file."""
    boxes = (box((layers,)),)
    source = (Stored("{layer}.a", "", ("layer",), boxes, (ROWS, WIDE)),)
    target = (Stored("layers.{layer}.b", f"x.{format}", ("layer",), boxes, (ROWS, WIDE)),)
    over = (Over(layers, (1,), (1,)),)
    return Plan("m", side(source), side(target, format), (Step(0, 0, (0,), (0,), over, 0, 0, (Loop(ROWS * WIDE, 1, 1),), "range"),))


def sliced(layers: int, format: str, tp: int = 4) -> Plan:
    """The columns of every tensor over the ranks."""
    part = WIDE // tp
    source = (Stored("{layer}.a", "", ("layer",), (box((layers,)),), (ROWS, WIDE)),)
    target = (Stored("{layer}.b", f"rank{{tp}}.{format}", ("tp", "layer"), (box((tp, layers)),), (ROWS, part)),)
    over = (Over(tp, (0,), (1, 0), part), Over(layers, (1,), (0, 1)))
    return Plan("m", side(source), side(target, format), (Step(0, 0, (0,), (0, 0), over, 0, 0, (Loop(ROWS, WIDE, part), Loop(part, 1, 1)), "rows"),))


def turned(rows: int, wide: int) -> Plan:
    """One tensor, transposed."""
    source = (Stored("a", "", (), (box(()),), (rows, wide)),)
    target = (Stored("b", "x.safetensors", (), (box(()),), (wide, rows)),)
    return Plan("m", side(source), side(target, "safetensors"), (Step(0, 0, (), (), (), 0, 0, (Loop(wide, 1, rows), Loop(rows, wide, 1)), "transpose"),))


def ready(folder: Path, plan: Plan) -> Bound:
    folder.mkdir()
    raw, _ = put(folder, plan, ["uint16"])
    return bind(plan, raw)


class Costs:
    """`bytes` that were read, written and copied from buffer to buffer; `calls` of the system."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.bytes: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        preadv, pwritev, copy = os.preadv, os.pwritev, fill.copy

        def reading(number: int, parts: Any, at: int) -> int:
            return self.did("read", preadv(number, parts, at))

        def writing(number: int, parts: Any, at: int) -> int:
            return self.did("written", pwritev(number, parts, at))

        def copying(source: Any, target: Any, source_at: int, target_at: int, loops: Any) -> None:
            copy(source, target, source_at, target_at, loops)
            count = source.itemsize
            for extent, _, _ in loops:
                count *= extent
            self.bytes["copied"] += count

        monkeypatch.setattr(os, "preadv", reading)
        monkeypatch.setattr(os, "pwritev", writing)
        monkeypatch.setattr(fill, "copy", copying)

    def did(self, what: str, done: int) -> int:
        self.bytes[what] += done
        self.calls[what] += 1
        return done


@pytest.mark.parametrize("format", ["safetensors", "pt"])
def test_a_renamed_tensor_passes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    """Read to a buffer, summed up there, written from there: nothing is moved within this process."""
    bound = ready(tmp_path / "in", renamed(5, format))
    costs = Costs(monkeypatch)
    report = engine.run(bound, tmp_path / "out")
    tensors = 5 * ROWS * WIDE * 2
    assert costs.bytes == {"read": tensors, "written": sum(file.layout.size for file in bound.files)}
    assert report.kernel_calls == 0
    assert sum(costs.calls.values()) <= 3 * (tensors >> 20)


@pytest.mark.parametrize("format", ["safetensors", "pt"])
def test_a_sliced_tensor_is_read_once_and_moved_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    bound = ready(tmp_path / "in", sliced(5, format))
    costs = Costs(monkeypatch)
    engine.run(bound, tmp_path / "out")
    tensors = 5 * ROWS * WIDE * 2
    assert costs.bytes == {"read": tensors, "copied": tensors, "written": sum(file.layout.size for file in bound.files)}
    assert sum(costs.calls.values()) <= 6 * (tensors >> 20)  # each rank has a file


@pytest.mark.parametrize(("plan", "most"), [(renamed, 160), (sliced, 800)])
@pytest.mark.parametrize("format", ["safetensors", "pt"])
def test_a_further_tensor_costs_few_calls_of_python(tmp_path: Path, plan: Any, most: int, format: str) -> None:
    """Equal layers share a recipe: what another one costs is its reads, its writes, and what stands around them."""

    def calls(layers: int) -> int:
        bound = ready(tmp_path / f"in{layers}", plan(layers, format))
        counted = 0

        def count(frame: Any, event: str, argument: Any) -> None:
            nonlocal counted
            counted += event == "call"

        threading.setprofile(count)
        sys.setprofile(count)
        try:
            engine.run(bound, tmp_path / f"out{layers}", workers=1)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]
        return counted

    calls(1)
    assert (calls(12) - calls(4)) / 8 <= most


def unread(folder: Path, plan: Plan) -> Bound:
    """Bound to a tensor in a file of holes: enough to schedule."""
    (stored,) = plan.source.stored
    path = folder / "holes"
    with path.open("wb") as file:
        file.truncate(2 * stored.shape[0] * stored.shape[1])
    return bind(plan, Raw(str(folder), (Entry(stored.name, "holes", Window(str(path), 0, stored.shape, row_major(stored.shape), "uint16")),)))


def test_a_transposed_tensor_takes_little_memory_and_is_read_once(tmp_path: Path) -> None:
    """A chunk holds a few columns of every row, which are read by themselves."""
    bound = unread(tmp_path, turned(4096, 14336))
    made = schedule.schedule(bound, 512 << 20, 2)
    assert made.buffer_bytes * 2 <= 72 << 20
    read = sum(job.recipe.piece(number).read_bytes for task in made.tasks for job, number, _ in task.items)
    assert read <= 1.5 * 4096 * 14336 * 2


def test_a_schedule_does_not_grow_with_its_tensors(tmp_path: Path) -> None:
    """A long tensor is one part of it: its chunks are made when they are due."""
    small, large = (schedule.schedule(unread(tmp_path, replace(turned(8, n), steps=_range(8 * n))), 64 << 20, 2) for n in (1 << 20, 1 << 30))
    assert len(small.tasks) * 1000 < len(large.tasks)
    assert len(large.tasks._parts) == 1  # type: ignore[attr-defined]
    assert large.tasks[len(large.tasks) - 1].items[0][1] == len(large.tasks) - 1
    with pytest.raises(IndexError):
        large.tasks[len(large.tasks)]
    assert small.buffer_bytes >= large.buffer_bytes


def _range(count: int) -> tuple[Step, ...]:
    return (Step(0, 0, (), (), (), 0, 0, (Loop(count, 1, 1),), "range"),)


def test_blocks_are_set_aside_and_a_file_is_no_longer_than_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that one that is not finished never looks whole."""
    bound = ready(tmp_path / "in", renamed(5, "safetensors"))
    sizes: list[int] = []
    pwritev = os.pwritev

    def writing(number: int, parts: Any, at: int) -> int:
        sizes.append(os.fstat(number).st_size - at)
        return pwritev(number, parts, at)

    monkeypatch.setattr(os, "pwritev", writing)
    engine.run(bound, tmp_path / "out")
    assert max(sizes) <= 0
