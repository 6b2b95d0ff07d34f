"""Long runs copied within the kernel: the same bytes as without, in the same order, and a way back where it cannot."""

from __future__ import annotations

import errno
import os
import tempfile
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptc.runtime.binding.bind import Bound, bind
from ckptc.runtime.engine import chunk, copy_range, engine
from ckptc.runtime.fault import Fault
from ckptc.runtime.files import file_system
from ckptc.runtime.plan.plan import Loop, Over, Plan, Step, Stored

from .random_plans import Drawn, box, plans, side
from .reference_plan import execute
from .test_engine import LAX, put, written

pytestmark = pytest.mark.skipif(not hasattr(os, "copy_file_range"), reason="this system has no copy_file_range")


def gathered(layers: int = 3, tp: int = 2, hidden: int = 64, wide: int = 96) -> Plan:
    """Ranks to whole tensors: one side by side, and one half by ranges and half by rows."""
    part, two = wide // tp, ("tp", "layer")
    boxes = (box((tp, layers)),)
    source = (
        Stored("{tp}.{layer}.up", "", two, boxes, (part, hidden)),
        Stored("{tp}.{layer}.down", "", two, boxes, (hidden, part)),
    )
    target = (
        Stored("{layer}.both", "", ("layer",), (box((layers,)),), (wide + hidden, hidden)),
        Stored("{layer}.up", "", ("layer",), (box((layers,)),), (wide, hidden)),
    )

    def over(by: int) -> tuple[Over, ...]:
        return Over(tp, (1, 0), (0,), 0, by), Over(layers, (0, 1), (1,))

    ranges = (Loop(part * hidden, 1, 1),)
    rows = (Loop(hidden, part, hidden), Loop(hidden // tp, 1, 1))
    steps = (
        Step(0, 0, (0, 0), (0,), over(part * hidden), 0, 0, ranges, "range"),
        Step(1, 0, (0, 0), (0,), over(hidden // tp), 0, wide * hidden, rows, "rows"),
        Step(0, 1, (0, 0), (0,), over(part * hidden), 0, 0, ranges, "range"),
    )
    return Plan("m", side(source), side(target, "safetensors"), steps)


@pytest.fixture(autouse=True)
def serves(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system of the tests is said to be one that copies by itself, as a file server does."""
    monkeypatch.setattr(copy_range, "copies_itself", lambda number: 1)


def forced(monkeypatch: pytest.MonkeyPatch, least: int = 64) -> None:
    monkeypatch.setattr(chunk, "LONG_BYTES", least)
    monkeypatch.setattr(chunk, "_DIRECT_BYTES", least)


class Counted:
    """Stands for os.copy_file_range, pwrite and pwritev: what each file got, and that it got it in ascending order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, most: int = 1 << 30) -> None:
        self.copied = self.written = 0
        self.seen: dict[int, int] = {}
        self.lock = threading.Lock()
        copy, pwrite, pwritev = os.copy_file_range, os.pwrite, os.pwritev

        def copying(source: int, number: int, count: int, source_at: int, at: int) -> int:
            done = copy(source, number, min(count, most), source_at, at)
            self.went(number, at, done, copied=done)
            return done

        def writing(number: int, parts: Any, at: int) -> int:
            done = pwritev(number, parts, at)
            self.went(number, at, done, written=done)
            return done

        def one(number: int, data: Any, at: int) -> int:
            done = pwrite(number, data, at)
            self.went(number, at, done, written=done)
            return done

        monkeypatch.setattr(os, "copy_file_range", copying)
        monkeypatch.setattr(os, "pwritev", writing)
        monkeypatch.setattr(os, "pwrite", one)

    def went(self, number: int, at: int, size: int, copied: int = 0, written: int = 0) -> None:
        file = os.fstat(number).st_ino
        with self.lock:  # workers write different files at once
            self.copied += copied
            self.written += written
            assert self.seen.get(file, 0) <= at
            self.seen[file] = at + size


def ready(tmp_path: Path, plan: Plan, **options: Any) -> tuple[Bound, Any]:
    (tmp_path / "in").mkdir()
    raw, values = put(tmp_path / "in", plan, ["uint16"] * len(plan.source.stored))
    return bind(plan, raw, **options), execute(plan, values)


@pytest.mark.parametrize("memory", [3000, 20_000, 64 << 20])
@pytest.mark.parametrize("workers", [1, 3])
def test_ranges_and_rows_of_one_tensor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: int, workers: int
) -> None:
    bound, wanted = ready(tmp_path, gathered(), max_shard_bytes=50_000)
    monkeypatch.setattr(chunk, "LONG_BYTES", 1 << 40)
    plain = engine.run(bound, tmp_path / "plain", memory=memory * workers, workers=workers)
    forced(monkeypatch)
    counted, said = Counted(monkeypatch, most=1000), list[Any]()
    report = engine.run(bound, tmp_path / "out", memory=memory * workers, workers=workers, progress=said.append)
    assert written(bound, tmp_path / "out") == wanted
    names = sorted(os.listdir(tmp_path / "plain"))
    assert names == sorted(os.listdir(tmp_path / "out"))
    assert all((tmp_path / "plain" / n).read_bytes() == (tmp_path / "out" / n).read_bytes() for n in names)
    assert counted.copied + counted.written == sum(file.layout.size for file in bound.files)
    assert counted.copied > 0
    assert (report.bytes_read, report.bytes_written) == (plain.bytes_read, plain.bytes_written)
    assert all(p.done_bytes <= p.total_bytes for p in said)


def test_long_runs_are_copied_and_short_ones_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound, wanted = ready(tmp_path, gathered(layers=1, hidden=512, wide=1024))
    counted = Counted(monkeypatch)
    engine.run(bound, tmp_path / "out")
    assert counted.copied == 2 * 1024 * 512 * 2
    assert written(bound, tmp_path / "out") == wanted


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EIO])
def test_what_the_kernel_refuses_is_read_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    bound, wanted = ready(tmp_path, gathered())
    forced(monkeypatch)
    real, calls = os.copy_file_range, 0

    def refused(*args: Any) -> int:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise OSError(number, os.strerror(number))
        return real(args[0], args[1], 10, *args[3:])

    monkeypatch.setattr(os, "copy_file_range", refused)
    engine.run(bound, tmp_path / "out", memory=20_000, workers=1)
    assert calls == 2
    assert written(bound, tmp_path / "out") == wanted


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound, _ = ready(tmp_path, gathered())
    forced(monkeypatch)

    def full(*args: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "copy_file_range", full)
    with pytest.raises(Fault, match="disk-full"):
        engine.run(bound, tmp_path / "out", memory=60_000, workers=3)
    assert os.listdir(tmp_path) == ["in"]


def test_a_source_that_ends_early_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound, _ = ready(tmp_path, gathered())
    forced(monkeypatch)
    path = tmp_path / "in/source.raw"
    os.truncate(path, path.stat().st_size // 3)
    with pytest.raises(Fault, match="source-changed"):
        engine.run(bound, tmp_path / "out", memory=60_000, workers=2)
    assert os.listdir(tmp_path) == ["in"]


def test_files_with_checksums_are_written_from_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = gathered()
    named = tuple(replace(stored, file="x.pt") for stored in plan.target.stored)
    bound, wanted = ready(tmp_path, replace(plan, target=side(named, "pt")))
    forced(monkeypatch)
    counted = Counted(monkeypatch)
    engine.run(bound, tmp_path / "out")
    assert counted.copied == 0
    assert written(bound, tmp_path / "out") == wanted


def test_a_file_system_that_moves_the_bytes_itself_is_not_asked_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound, wanted = ready(tmp_path, gathered())
    forced(monkeypatch)
    monkeypatch.setattr(copy_range, "copies_itself", lambda number: 0)
    counted = Counted(monkeypatch)
    engine.run(bound, tmp_path / "out")
    assert counted.copied == 0
    assert written(bound, tmp_path / "out") == wanted


@pytest.mark.parametrize("shift", [0, 24])
def test_blocks_are_shared_where_both_files_have_them_at_the_same_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: int) -> None:
    """Whole blocks go by themselves, and what is before and after them too: none begins within a block."""
    block = file_system.BLOCK
    source = (Stored("a", "", (), (box(()),), (3 * 4096, 100)),)
    plan = Plan("m", side(source), side(source, "safetensors"), (Step(0, 0, (), (), (), 0, 0, (Loop(3 * 4096 * 100, 1, 1),), "range"),))
    bound, _ = ready(tmp_path, plan)
    start = bound.files[0].layout.regions[0].at
    window = bound.windows[0]
    assert window is not None
    moved = replace(window, at=start % block + shift)
    Path(window.path).write_bytes(bytes(moved.at) + os.urandom(3 * 4096 * 200))
    bound.windows[0] = moved
    bound = replace(bound, stamps={})
    calls: list[tuple[int, int, int]] = []
    copy = os.copy_file_range

    def copying(one: int, two: int, count: int, source_at: int, at: int) -> int:
        calls.append((source_at, at, count))
        return copy(one, two, count, source_at, at)

    monkeypatch.setattr(os, "copy_file_range", copying)
    monkeypatch.setattr(copy_range, "copies_itself", lambda number: block)
    engine.run(bound, tmp_path / "out")
    assert bool(calls) == (shift == 0)
    assert all((a - b) % block == 0 for a, b, _ in calls)
    assert all(a % block == b % block == 0 for a, b, n in calls if n >= block)
    data = (tmp_path / "out" / bound.files[0].name).read_bytes()
    assert data[start:] == Path(window.path).read_bytes()[moved.at : moved.at + 3 * 4096 * 200]


@LAX
@given(plans(), st.integers(150, 4000), st.integers(1, 3), st.integers(1, 64))
def test_any_plan_gives_what_the_reference_gives(drawn: Drawn, memory: int, workers: int, least: int) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        forced(patch, least)
        folder = Path(name)
        (folder / "in").mkdir()
        named = tuple(replace(s, file=s.file.replace(".pt", ".safetensors")) for s in drawn.plan.target.stored)
        plan = replace(drawn.plan, target=replace(drawn.plan.target, format="safetensors", stored=named))
        checkpoint, values = put(folder / "in", plan, drawn.dtypes)
        bound = bind(plan, checkpoint)
        engine.run(bound, folder / "out", memory=memory * workers, workers=workers)
        assert written(bound, folder / "out") == execute(plan, values)
