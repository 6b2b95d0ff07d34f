"""Runs that are ended and gone on with: what is kept, what is refused, in which order it reaches the disk, and who may write."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ckptc.runtime.binding.bind import Bound, bind
from ckptc.runtime.engine import destination, engine
from ckptc.runtime.engine.engine import Report
from ckptc.runtime.fault import Fault
from ckptc.runtime.journal import fingerprint, lock, partial, records
from tests.held import files_of

from .test_engine import Raw, llama, put
from .test_engine_faults import rank_files, ranked


def made(folder: Path, format: str = "pt", **sizes: int) -> Bound:
    """A bound plan of a small source, with many tasks at a small memory."""
    plan = llama(**sizes)
    if format != "pt":
        stored = tuple(replace(each, file=each.file.replace(".pt", f".{format}")) for each in plan.target.stored)
        plan = replace(plan, target=replace(plan.target, format=format, stored=stored))
    (folder / "in").mkdir()
    raw, _ = put(folder / "in", plan, ["uint16"] * 3)
    return bind(plan, raw)


def again(bound: Bound) -> Bound:
    """The same conversion, bound anew, as another process has it."""
    return bind(bound.plan, bound.checkpoint)


def failing_after(count: int, problem: Callable[[], BaseException]) -> Callable[..., int]:
    """`os.pwritev`, which fails from the call number `count` on."""
    real, calls = os.pwritev, iter(range(1 << 30))

    def pwritev(*args: Any) -> int:
        if next(calls) >= count:
            raise problem()
        return real(*args)

    return pwritev


def full() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


def end(bound: Bound, out: Path, monkeypatch: pytest.MonkeyPatch, calls: int = 12, **options: Any) -> Fault:
    """A run with `resume` that ends on a full disk."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", failing_after(calls, full))
        with pytest.raises(Fault, match="disk-full") as caught:
            engine.run(bound, out, resume=True, memory=options.pop("memory", 20_000), **options)
    return caught.value


def resumed(bound: Bound, out: Path, **options: Any) -> Report:
    return engine.run(again(bound), out, resume=True, **{"memory": 20_000, **options})


@pytest.mark.parametrize("format", ["pt", "safetensors"])
def test_a_run_on_a_full_disk_is_gone_on_with(format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = made(tmp_path, format)
    whole = engine.run(bound, tmp_path / "plain", memory=20_000)
    fault = end(bound, tmp_path / "out", monkeypatch)
    assert fault.notes[-1] == f"what is finished is kept in {tmp_path}/.out.resume: run the same with --resume to go on"
    assert set(os.listdir(tmp_path)) == {"in", "plain", ".out.resume"}
    report = resumed(bound, tmp_path / "out")
    assert 0 < report.bytes_read < whole.bytes_read
    assert files_of(tmp_path / "out") == files_of(tmp_path / "plain")
    assert set(os.listdir(tmp_path)) == {"in", "plain", "out"}


@pytest.mark.parametrize(("memory", "workers"), [(20_000, 1), (64_000, 3), (64 << 20, 2)])
def test_memory_and_workers_may_be_others(memory: int, workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = made(tmp_path)
    engine.run(bound, tmp_path / "plain")
    end(bound, tmp_path / "out", monkeypatch, calls=9, workers=2)
    resumed(bound, tmp_path / "out", memory=memory, workers=workers)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "plain")


def test_a_run_may_end_many_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = made(tmp_path, layers=14)
    engine.run(bound, tmp_path / "plain")
    held = []
    for _ in range(4):
        end(again(bound), tmp_path / "out", monkeypatch, calls=8, workers=1)
        known = records.read(str(tmp_path / ".out.resume"), [len(file.layout.regions) for file in bound.files])
        assert known is not None
        held.append(len(known.done))
    assert held == sorted(set(held))
    resumed(bound, tmp_path / "out")
    assert files_of(tmp_path / "out") == files_of(tmp_path / "plain")


def test_with_nothing_to_resume_it_simply_runs(tmp_path: Path) -> None:
    bound = made(tmp_path)
    engine.run(bound, tmp_path / "plain")
    engine.run(again(bound), tmp_path / "out", resume=True)
    assert files_of(tmp_path / "out") == files_of(tmp_path / "plain")
    assert set(os.listdir(tmp_path)) == {"in", "plain", "out"}


def test_a_run_that_finished_nothing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = made(tmp_path)
    fault = end(bound, tmp_path / "out", monkeypatch, calls=0)
    assert not any("--resume" in note for note in fault.notes)
    assert os.listdir(tmp_path) == ["in"]


def test_without_resume_a_failed_run_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = made(tmp_path)
    monkeypatch.setattr(os, "pwritev", failing_after(12, full))
    with pytest.raises(Fault, match="disk-full"):
        engine.run(bound, tmp_path / "out", memory=20_000)
    assert os.listdir(tmp_path) == ["in"]


def test_an_interrupted_run_says_that_it_keeps_what_is_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = made(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", failing_after(12, KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt, match="what is finished is kept: run the same with --resume to go on"):
            engine.run(bound, tmp_path / "out", resume=True, memory=20_000)
    resumed(bound, tmp_path / "out")
    assert set(os.listdir(tmp_path)) == {"in", "out"}


def test_a_result_that_stands_already_is_left_as_it_is(tmp_path: Path) -> None:
    bound = made(tmp_path)
    engine.run(bound, tmp_path / "out", resume=True)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    resumed(bound, tmp_path / "out")
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == before
    assert set(os.listdir(tmp_path)) == {"in", "out"}
    place = tmp_path / "out" / bound.files[0].name
    data = bytearray(place.read_bytes())
    data[len(data) // 2] ^= 1
    place.write_bytes(data)
    with pytest.raises(Fault, match=r"destination-exists.*not what this conversion writes"):
        resumed(bound, tmp_path / "out")
    place.unlink()
    with pytest.raises(Fault, match="destination-exists"):
        resumed(bound, tmp_path / "out")
    assert set(os.listdir(tmp_path)) == {"in", "out"}


def test_another_plan_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = made(tmp_path)
    end(bound, tmp_path / "out", monkeypatch)
    other = replace(bound.plan, files=(*bound.plan.files, ("more.json", "{}")))
    with pytest.raises(Fault, match="plan-changed"):
        engine.run(bind(other, bound.checkpoint), tmp_path / "out", resume=True, memory=20_000)
    with monkeypatch.context() as patch:
        patch.setattr(fingerprint, "ckptc_version", lambda: "99.9")
        with pytest.raises(Fault, match="plan-changed"):
            resumed(bound, tmp_path / "out")
    resumed(bound, tmp_path / "out")


@pytest.mark.parametrize("change", ["time", "size", "header", "gone"])
def test_a_changed_source_is_refused(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = made(tmp_path)
    end(bound, tmp_path / "out", monkeypatch)
    path = tmp_path / "in/source.raw"
    facts, data = path.stat(), path.read_bytes()
    if change == "time":
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1))
    elif change == "gone":
        path.rename(tmp_path / "in/moved.raw")
    else:
        path.write_bytes(data + b"#" if change == "size" else bytes([data[0] ^ 1]) + data[1:])
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    with pytest.raises(Fault, match="missing-file" if change == "gone" else r"source-changed.*in/source.raw"):
        resumed(bound, tmp_path / "out")
    assert (tmp_path / ".out.resume/journal").exists()


def finished(bound: Bound, out: Path) -> tuple[Path, int]:
    """A file of the partial output, and a byte of a region in it that is finished."""
    folder = partial.folder_of(str(out))
    known = records.read(folder, [len(file.layout.regions) for file in bound.files])
    assert known is not None
    file, region = min(known.done)
    return Path(folder, "data", bound.files[file].name), bound.files[file].layout.regions[region].at


@pytest.mark.parametrize("change", ["bit", "header", "short", "gone", "long", "extra", "link", "pipe"])
def test_changed_partial_output_is_refused(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = made(tmp_path)
    end(bound, tmp_path / "out", monkeypatch)
    path, at = finished(bound, tmp_path / "out")
    data = bytearray(path.read_bytes())
    if change in ("bit", "header"):
        data[at + 3 if change == "bit" else at - 1] ^= 4
        path.write_bytes(data)
    elif change == "short":
        os.truncate(path, at + 1)
    elif change == "long":
        os.truncate(path, 1 << 30)
    elif change == "extra":
        (path.parent / "model-stale.pt").write_bytes(b"stale")
    else:
        path.unlink()
        if change == "link":
            (tmp_path / "elsewhere").write_bytes(data)
            path.symlink_to(tmp_path / "elsewhere")
        elif change == "pipe":
            os.mkfifo(path)
    with pytest.raises(Fault, match=r"partial-changed.*\.out\.resume/data/") as caught:
        resumed(bound, tmp_path / "out")
    assert "--overwrite" in caught.value.help
    assert not (tmp_path / "out").exists()
    engine.run(bound, tmp_path / "out", overwrite=True)
    assert set(os.listdir(tmp_path)) - {"elsewhere"} == {"in", "out"}


def test_a_torn_record_is_dropped_and_other_damage_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = made(tmp_path)
    engine.run(bound, tmp_path / "plain")
    end(bound, tmp_path / "out", monkeypatch)
    path = tmp_path / ".out.resume/journal"
    sound = path.read_bytes()
    lines = sound.splitlines(keepends=True)
    assert len(lines) >= 2
    shutil.copytree(tmp_path / ".out.resume", tmp_path / "saved")
    more = sound + records.line({"compared": True})
    for damaged in (b"x" + sound[1:], more.replace(b'"done"', b'"gone"', 1), lines[0][:-9], b"\n" + sound, b"", b"\0" * 4096):
        path.write_bytes(damaged)
        with pytest.raises(Fault, match="journal-damaged"):
            resumed(bound, tmp_path / "out")
    for torn in (sound[:-1], sound + b"0123", sound + lines[1][:20], b"".join(lines[:-1])):
        shutil.rmtree(tmp_path / ".out.resume", ignore_errors=True)
        shutil.copytree(tmp_path / "saved", tmp_path / ".out.resume")
        path.write_bytes(torn)
        resumed(bound, tmp_path / "out", overwrite=True)
        assert files_of(tmp_path / "out") == files_of(tmp_path / "plain")


@pytest.mark.parametrize("record", [{"done": [[9, 0, 1]]}, {"done": [[0, 99, 1]]}, {"done": [[0, 0, -1]]}, {"done": 7}, {"done": [[0]]}, [1]])
def test_records_that_lie_are_refused(record: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = made(tmp_path)
    end(bound, tmp_path / "out", monkeypatch)
    with open(tmp_path / ".out.resume/journal", "ab") as file:
        file.write(records.line(record))
    with pytest.raises(Fault, match="journal-damaged"):
        resumed(bound, tmp_path / "out")


def test_a_run_that_is_not_resumed_does_not_lose_partial_output_by_accident(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = made(tmp_path)
    end(bound, tmp_path / "out", monkeypatch)
    with pytest.raises(Fault, match="partial-exists") as caught:
        engine.run(bound, tmp_path / "out")
    assert caught.value.help == "use --resume to go on with it, or --overwrite to start over"
    engine.run(bound, tmp_path / "out", overwrite=True)
    assert set(os.listdir(tmp_path)) == {"in", "out"}


@pytest.mark.parametrize("how", ["new", "overwrite", "merge"])
@pytest.mark.parametrize("moment", ["before", "within", "after"])
def test_a_run_that_is_killed_while_it_is_moved_ends_whole(how: str, moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = made(tmp_path)
    engine.run(bound, tmp_path / "plain")
    wanted = files_of(tmp_path / "plain")
    options = {"overwrite": how == "overwrite", "merge": how == "merge"}
    if how != "new":
        (tmp_path / "out").mkdir()
        (tmp_path / "out/mine").write_text("what stood here before")
        wanted |= {"mine": b"what stood here before"} if how == "merge" else {}
    with monkeypatch.context() as patch:
        name = "replace" if how == "merge" else "rename"
        real, calls = getattr(os, name), iter(range(99))

        def move(one: Any, other: Any) -> None:
            if str(other).startswith(str(tmp_path / "out")) or str(other).endswith("/old"):
                number = next(calls)
                if moment == "before" or (moment == "within" and number == 1):
                    raise KeyboardInterrupt
                real(one, other)
                if moment == "after" and not str(other).endswith("/old"):
                    raise KeyboardInterrupt
            else:
                real(one, other)

        patch.setattr(os, name, move)
        if how == "new" and moment == "within":
            engine.run(bound, tmp_path / "out", resume=True, memory=20_000)
        else:
            with pytest.raises(KeyboardInterrupt):
                engine.run(bound, tmp_path / "out", resume=True, memory=20_000, **options)
    report = resumed(bound, tmp_path / "out", **options)
    assert files_of(tmp_path / "out") == wanted
    assert set(os.listdir(tmp_path)) == {"in", "plain", "out"}
    assert report.bytes_written


def test_data_reaches_the_disk_before_records_names_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = made(tmp_path)
    events: list[tuple[str, str]] = []
    fsync, rename = os.fsync, os.rename
    monkeypatch.setattr(partial, "_EVERY_SECONDS", 0.0)
    monkeypatch.setattr(os, "fsync", lambda number: (events.append(("sync", os.readlink(f"/proc/self/fd/{number}"))), fsync(number))[1])
    monkeypatch.setattr(os, "rename", lambda one, other: (events.append(("rename", str(other))), rename(one, other))[1])
    append = partial.Journal._append

    def said(self: partial.Journal, record: Any) -> None:
        names = {bound.files[file].name for file, _, _ in record.get("done", ())} or set(bound.names if "whole" in record else ())
        since = [path for what, path in events if what == "sync"]
        for name in names:
            path = os.path.join(self.root, name)
            assert path in since, f"{name} is said to be finished before it is on the disk"
            assert os.path.dirname(path) in since
        events.append(("record", "whole" if "whole" in record else ""))
        append(self, record)

    monkeypatch.setattr(partial.Journal, "_append", said)
    engine.run(bound, tmp_path / "out", resume=True, memory=20_000)
    whole = events.index(("record", "whole"))
    assert events[whole + 1 : whole + 4] == [("sync", str(tmp_path / ".out.resume/journal")), ("rename", str(tmp_path / "out")), ("sync", str(tmp_path))]
    synced = {path for what, path in events[:whole] if what == "sync"}
    assert synced >= {os.path.join(tmp_path, ".out.resume/data", name) for name in bound.names}


def test_copies_are_compared_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    plan = ranked()
    raw: Raw = rank_files(tmp_path / "in", plan)
    first, second = raw.entries[:2]
    with open(first.window.path, "r+b") as file:
        data = os.pread(file.fileno(), 1200, first.window.at)
        os.pwrite(file.fileno(), data, second.window.at)
    bound = bind(plan, raw)
    writes = []
    with monkeypatch.context() as patch:
        real = os.pwritev
        patch.setattr(os, "pwritev", lambda *args: (writes.append(args), real(*args))[1])
        assert engine.run(bound, tmp_path / "plain", memory=700, workers=1).bytes_compared == 2400
    calls = len(writes) - 1
    end(bound, tmp_path / "out", monkeypatch, calls=calls, memory=700, workers=1)
    assert resumed(bound, tmp_path / "out", memory=700).bytes_compared == 0


HELD = """
import sys, time
from ckptc.runtime.journal.lock import hold
with hold(sys.argv[1], "x"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_living_process_keeps_its_lock_and_a_dead_one_loses_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = made(tmp_path)
    end(bound, tmp_path / "out", monkeypatch)
    holder = subprocess.Popen([sys.executable, "-c", HELD, str(tmp_path / ".out.resume")], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for resume in (True, False):
            with pytest.raises(Fault, match=f"destination-busy.*process {holder.pid} on {os.uname().nodename}"):
                engine.run(again(bound), tmp_path / "out", resume=resume, overwrite=True)
    finally:
        holder.kill()
        holder.wait()
    resumed(bound, tmp_path / "out")


def write_lock(folder: Path, **holder: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "lock").write_text(json.dumps({"pid": os.getpid(), "host": os.uname().nodename, "started": lock._started(os.getpid()), **holder}))


def no_locks(number: int, what: int) -> None:
    raise OSError(errno.ENOSYS, "Function not implemented")


def test_where_there_are_no_locks_the_process_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    folder = tmp_path / "f"
    write_lock(folder)
    with pytest.raises(Fault, match=f"destination-busy.*process {os.getpid()} on"), lock.hold(str(folder), "out"):
        pass
    for dead in ({"started": "1"}, {"pid": 2**22 + 5}, {"pid": 10**30}, {"pid": None}):  # a number that is used again, or that none has
        write_lock(folder, **dead)
        with lock.hold(str(folder), "out"):
            assert json.loads((folder / "lock").read_text())["pid"] == os.getpid()
    for said in ("", "no json", "[1]"):
        (folder / "lock").write_text(said)
        with lock.hold(str(folder), "out"):
            pass


def test_a_holder_on_another_machine_lives_while_it_touches_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "PATIENCE_SECONDS", 0.5)
    folder = tmp_path / "f"
    write_lock(folder, host="elsewhere")
    with lock.hold(str(folder), "out"):
        pass
    write_lock(folder, host="elsewhere", pid=7)
    times = iter(range(99))
    real = os.fstat

    def beating(number: int) -> Any:
        facts = real(number)
        return os.stat_result(facts[:10], {"st_mtime_ns": next(times)})

    with monkeypatch.context() as patch:
        patch.setattr(lock.os, "fstat", beating)
        with pytest.raises(Fault, match="process 7 on elsewhere"), lock.hold(str(folder), "out"):
            pass


def test_a_link_in_the_place_of_partial_output_is_refused(tmp_path: Path) -> None:
    bound = made(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / ".out.resume").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Fault, match="is a link"):
        resumed(bound, tmp_path / "out")
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_killed_plain_run_leaves_nothing_to_resume(tmp_path: Path) -> None:
    bound = made(tmp_path)
    done = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    left = tmp_path / f"{destination._mark('out')}{int(done.stdout)}-abc"
    left.mkdir()
    (left / "tp0.pt").write_bytes(b"half")
    resumed(bound, tmp_path / "out")
    assert set(os.listdir(tmp_path)) == {"in", "out"}
