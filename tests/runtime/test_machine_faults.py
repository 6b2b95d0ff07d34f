"""Faults in the machine: short reads and writes, errors of disks, files that vanish, odd names, links, few descriptors, odd clocks.

Each run ends with the right bytes, or with one fault and nothing under the final name.
"""

from __future__ import annotations

import ast
import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ckptc
from ckptc.demo import write_llama
from ckptc.runtime.binding.bind import Bound, bind
from ckptc.runtime.engine import destination, engine, fill, workers
from ckptc.runtime.engine import output as ending
from ckptc.runtime.fault import Fault
from ckptc.runtime.files import stamps
from ckptc.runtime.files.window import SideFile
from ckptc.runtime.journal.partial import folder_of

from .reference_plan import execute
from .test_engine import llama, put, written

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bound(tmp_path: Path) -> Bound:
    return made(tmp_path)


def made(folder: Path) -> Bound:
    (folder / "in").mkdir()
    plan = llama()
    plan = replace(plan, target=replace(plan.target, carry=("tokenizer*",)))
    raw, _ = put(folder / "in", plan, ["uint16"] * 3)
    (folder / "in/tokenizer.model").write_bytes(bytes(range(256)) * 40)
    return bind(plan, replace(raw, beside=(SideFile("tokenizer.model", str(folder / "in/tokenizer.model"), 0, 10240),)))


def right(bound: Bound, out: Path) -> bool:
    plan = bound.plan
    values = {}
    for number, family in enumerate(bound.sources):
        for row, coords in enumerate(family.rows.tolist()):
            window = bound.windows[family.start + row]
            assert window is not None
            with open(window.path, "rb") as file:
                file.seek(window.at)
                data = file.read(2 * family.elements)
            values[number, tuple(coords)] = [int.from_bytes(data[i : i + 2], "little") for i in range(0, len(data), 2)]
    return written(bound, out) == execute(plan, values)


@pytest.mark.parametrize("resume", [False, True])
def test_short_reads_and_writes_are_gone_on_with(resume: bool, bound: Bound, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, write, pwrite = os.preadv, os.pwritev, os.pwrite
    monkeypatch.setattr(os, "preadv", lambda number, parts, at: read(number, [memoryview(parts[0])[: max(1, len(parts[0]) // 3)]], at))
    monkeypatch.setattr(os, "pwritev", lambda number, parts, at: write(number, [memoryview(parts[0])[: max(1, len(parts[0]) // 3)]], at))
    monkeypatch.setattr(os, "pwrite", lambda number, data, at: pwrite(number, memoryview(data)[: max(1, len(data) // 2)], at))
    engine.run(bound, tmp_path / "out", memory=20_000, resume=resume)
    assert right(bound, tmp_path / "out")


def failing(name: str, number: int, after: int) -> Callable[..., Any]:
    real, calls = getattr(os, name), iter(range(1 << 30))

    def call(*args: Any, **more: Any) -> Any:
        if next(calls) >= after:
            raise OSError(number, os.strerror(number))
        return real(*args, **more)

    return call


@pytest.mark.parametrize("after", [0, 3, 9])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE])
@pytest.mark.parametrize("name", ["pwritev", "preadv"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_disk_that_fails_ends_the_run_with_a_sentence(
    resume: bool, name: str, number: int, after: int, bound: Bound, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, name, failing(name, number, after))
        with pytest.raises(Fault) as caught:
            engine.run(bound, tmp_path / "out", memory=20_000, resume=resume)
    full = name == "pwritev" and number in (errno.ENOSPC, errno.EDQUOT)
    assert caught.value.code == ("disk-full" if full else "write-failed" if name == "pwritev" else "read-failed")
    assert os.strerror(number) in caught.value.title
    assert set(os.listdir(tmp_path)) <= ({"in", ".out.resume"} if resume else {"in"})
    engine.run(bound, tmp_path / "out", memory=20_000, resume=resume)
    assert right(bound, tmp_path / "out")
    assert set(os.listdir(tmp_path)) == {"in", "out"}


@pytest.mark.parametrize("after", [0, 1, 2, 5, 8])
def test_a_disk_that_does_not_take_what_was_written_ends_the_run(after: int, bound: Bound, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for options in ({"durable": True}, {"resume": True}):
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", failing("fsync", errno.EIO, after if "resume" in options else min(after, 3)))
            with pytest.raises(Fault, match=r"write-failed.*Input/output error"):
                engine.run(bound, tmp_path / "out", memory=20_000, **options)  # type: ignore[arg-type]
        if (tmp_path / "out").exists():  # the last thing that is brought to the disk is the folder of what is whole
            assert right(bound, tmp_path / "out")
        engine.run(bound, tmp_path / "out", memory=20_000, overwrite=True)
        destination.shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize("name", ["open", "mkdir", "rename"])
@pytest.mark.parametrize("resume", [False, True])
def test_a_folder_that_takes_no_files_is_said(resume: bool, name: str, bound: Bound, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = getattr(os, name)

    def refuse(path: Any, *args: Any, **more: Any) -> Any:
        where = str(args[0]) if name == "rename" else str(path)
        writes = name != "open" or (args and args[0] & (os.O_WRONLY | os.O_RDWR))
        if writes and where.startswith(str(tmp_path)) and "/in" not in where:
            raise OSError(errno.EROFS, "Read-only file system")
        return real(path, *args, **more)

    with monkeypatch.context() as patch:
        patch.setattr(os, name, refuse)
        with pytest.raises(Fault, match=r"write-failed.*Read-only file system"):
            engine.run(bound, tmp_path / "out", memory=20_000, resume=resume)
    assert not (tmp_path / "out").exists()
    engine.run(bound, tmp_path / "out", resume=resume)
    assert right(bound, tmp_path / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_no_permission_is_said(bound: Bound, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    for resume in (False, True):
        with pytest.raises(Fault, match=r"write-failed.*Permission denied"):
            engine.run(bound, tmp_path / "closed/out", resume=resume)
    os.chmod(tmp_path / "in/source.raw", 0)
    with pytest.raises(Fault, match=r"read-failed.*Permission denied"):
        engine.run(bound, tmp_path / "out")


def test_signals_that_do_nothing_do_nothing(bound: Bound, tmp_path: Path) -> None:
    """System calls that a signal cuts off (EINTR) are made again."""
    came = []
    before = signal.signal(signal.SIGALRM, lambda *_: came.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        for number in range(6):
            engine.run(bound, tmp_path / f"out{number}", memory=4_000, resume=bool(number % 2))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert came
    assert all(right(bound, tmp_path / f"out{number}") for number in range(6))


@pytest.mark.parametrize("what", ["file", "all"])
@pytest.mark.parametrize("resume", [False, True])
def test_output_that_vanishes_while_it_is_written_is_missed(what: str, resume: bool, bound: Bound, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = os.pwritev, iter(range(1 << 30))

    def pwritev(*args: Any) -> int:
        if next(calls) == 6:
            root = next(p for p in tmp_path.iterdir() if p.name.startswith(".out."))
            for path in [p for p in root.rglob("*") if p.is_file() and p.name not in ("lock", "journal")][: 1 if what == "file" else None]:
                path.unlink()
        return real(*args)

    monkeypatch.setattr(os, "pwritev", pwritev)
    with pytest.raises(Fault, match="write-failed"):
        engine.run(bound, tmp_path / "out", memory=20_000, resume=resume)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("problem", [MemoryError(), RuntimeError("a worker broke"), Fault("x-fault", "a worker's fault"), SystemExit(3)])
def test_a_worker_that_dies_ends_the_run(problem: BaseException, bound: Bound, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = fill.Filler.fill, iter(range(1 << 30))

    def dies(*args: Any, **more: Any) -> None:
        if next(calls) == 4:
            raise problem
        real(*args, **more)

    monkeypatch.setattr(fill.Filler, "fill", dies)
    with pytest.raises(Fault if isinstance(problem, MemoryError) else type(problem)):
        engine.run(bound, tmp_path / "out", memory=20_000, workers=3)
    assert os.listdir(tmp_path) == ["in"]


def test_threads_that_cannot_be_started_are_said(bound: Bound, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = threading.Thread.start, iter(range(1 << 30))

    def start(self: threading.Thread) -> None:
        if next(calls) == 1:
            raise RuntimeError("can't start new thread")
        real(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(Fault, match="no-threads"):
        engine.run(bound, tmp_path / "out", memory=20_000, workers=3)
    assert os.listdir(tmp_path) == ["in"]


def test_clocks_may_jump(bound: Bound, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([10**9, 0, 5 * 10**9, -(10**9)] * 10_000)
    monkeypatch.setattr(time, "time", lambda: float(next(times)))
    monkeypatch.setattr(time, "time_ns", lambda: next(times) * 10**9)
    for name, resume in (("a", False), ("b", True)):
        os.utime(tmp_path / "in/source.raw", ns=(1, 1 << 61))  # a time to come
        again = bind(bound.plan, bound.checkpoint)
        engine.run(again, tmp_path / name, memory=20_000, resume=resume)
        assert right(bound, tmp_path / name)


FEW = """
import resource, sys
from pathlib import Path
import tests.runtime.test_machine_faults as t
from ckptc.runtime.engine import engine
bound = t.made(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_NOFILE, (34, 34))
engine.run(bound, Path(sys.argv[1]) / "out", memory=20_000, workers=2, resume=True, manifest=True)
print(t.right(bound, Path(sys.argv[1]) / "out"))
"""


def test_few_files_may_be_open(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FEW, str(tmp_path)], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.stdout == "True\n", done.stderr
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 34


NAMES = ["with spaces  and tabs\t", "línea ünïcode 模型 🦙", "new\nline", "-o", "x" * 255, "模" * 85, "'quotes\"", "%s{tp}$HOME", ".hidden", "trailing."]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
@pytest.mark.parametrize("resume", [False, True])
def test_odd_names_are_names(name: str, resume: bool, tmp_path: Path) -> None:
    assert len(os.fsencode(name)) <= 255
    (tmp_path / name).mkdir()
    bound = made(tmp_path / name)
    engine.run(bound, tmp_path / "to" / name, memory=20_000, resume=resume, manifest=True)
    assert right(bound, tmp_path / "to" / name)
    engine.run(bound, tmp_path / "to" / name, overwrite=True, resume=resume)
    assert os.listdir(tmp_path / "to") == [name]


def test_long_names_do_not_meet(tmp_path: Path) -> None:
    one, other = "x" * 254 + "a", "x" * 254 + "b"
    assert folder_of(one) != folder_of(other)
    assert destination._mark(one) != destination._mark(other)


def test_a_source_behind_links_is_read(tmp_path: Path) -> None:
    write_llama(tmp_path / "real")
    (tmp_path / "hub").mkdir()
    for path in (tmp_path / "real").iterdir():  # as the hub's cache has it
        (tmp_path / "hub" / path.name).symlink_to(path)
    (tmp_path / "link").symlink_to("hub")
    ckptc.convert(tmp_path / "link", tmp_path / "a", to="nxdt", resume=True)
    ckptc.convert(tmp_path / "real", tmp_path / "b", to="nxdt")
    for path in (tmp_path / "b").rglob("*.pt"):
        assert path.read_bytes() == (tmp_path / "a" / path.relative_to(tmp_path / "b")).read_bytes()


@pytest.mark.parametrize("resume", [False, True])
def test_a_destination_that_is_a_link_is_not_followed(resume: bool, bound: Bound, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for target in ("elsewhere", "nowhere"):
        (tmp_path / "out").symlink_to(target)
        with pytest.raises(Fault, match="destination-exists"):
            engine.run(bound, tmp_path / "out", resume=resume)
        assert os.listdir(tmp_path / "elsewhere") == []
        engine.run(bound, tmp_path / "out", resume=resume, overwrite=True)
        assert stat.S_ISDIR(os.lstat(tmp_path / "out").st_mode)
        assert right(bound, tmp_path / "out")
        assert os.listdir(tmp_path / "elsewhere") == []
        destination.shutil.rmtree(tmp_path / "out")


@pytest.mark.parametrize("resume", [False, True])
def test_links_in_a_folder_that_is_merged_into_are_replaced(resume: bool, bound: Bound, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "out/tp0.pt").symlink_to(tmp_path / "precious")
    engine.run(bound, tmp_path / "out", merge=True, resume=resume)
    assert (tmp_path / "precious").read_text() == "precious"
    assert right(bound, tmp_path / "out")


@pytest.mark.parametrize("resume", [False, True])
def test_destination_and_source_do_not_lie_in_each_other(resume: bool, tmp_path: Path) -> None:
    write_llama(tmp_path / "a/hf")
    plan = ckptc.plan(tmp_path / "a/hf", to="nxdt")
    for out, code in (("a/hf/out", "destination-in-source"), ("a/hf", "source-in-destination"), ("a", "source-in-destination")):
        with pytest.raises(Fault, match=code):
            plan.run(tmp_path / out, overwrite=True, resume=resume)
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(Fault, match="destination-in-source"):
        plan.run(tmp_path / "b/hf/out", resume=resume)
    assert sorted(p.name for p in (tmp_path / "a/hf").iterdir()) == sorted(p.name for p in (tmp_path / "a/hf").iterdir() if p.is_file())


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("overwrite", [False, True])
def test_of_two_runs_to_one_place_one_is_whole(overwrite: bool, resume: bool, bound: Bound, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda *args: (time.sleep(0.002), real(*args))[1])
    ends: list[BaseException | None] = []

    def go() -> None:
        try:
            engine.run(bound, tmp_path / "out", memory=20_000, resume=resume, overwrite=overwrite)
            ends.append(None)
        except BaseException as problem:
            ends.append(problem)

    threads = [threading.Thread(target=go) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert None in ends
    assert all(end is None or isinstance(end, Fault) for end in ends)
    assert right(bound, tmp_path / "out")
    assert set(os.listdir(tmp_path)) == {"in", "out"}


@pytest.mark.parametrize("other", [{"resume": True}, {"overwrite": True}])
def test_a_result_that_stands_is_resumed_beside_another_run_to_its_place(other: dict[str, bool], bound: Bound, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine.run(bound, tmp_path / "out")
    real = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda *args: (time.sleep(0.002), real(*args))[1])
    ends: list[BaseException | None] = []

    def go(options: dict[str, bool]) -> None:
        try:
            engine.run(bound, tmp_path / "out", memory=20_000, workers=1, resume=options.get("resume", False), overwrite=options.get("overwrite", False))
            ends.append(None)
        except BaseException as problem:
            ends.append(problem)

    threads = [threading.Thread(target=go, args=(options,)) for options in ({"resume": True}, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == [None, None]
    assert right(bound, tmp_path / "out")
    assert set(os.listdir(tmp_path)) == {"in", "out"}


def test_a_lock_that_cannot_be_written_is_said(bound: Bound, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwrite", failing("pwrite", errno.ENOSPC, 0))
    with pytest.raises(Fault, match=r"write-failed.*No space left on device"):
        engine.run(bound, tmp_path / "out", resume=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["listdir", "rename"])
def test_a_destination_that_a_killed_run_set_aside_and_that_cannot_come_back_is_said(name: str, bound: Bound, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = tmp_path / f"{destination._mark('out')}{2**22 + 5}-x"
    left.mkdir()
    (tmp_path / f"{left.name}.old").mkdir()  # the destination that it had set aside, and that is to come back
    real = getattr(os, name)

    def refuse(path: Any = ".", *args: Any, **more: Any) -> Any:
        if str(path).startswith(str(left)) or name == "listdir":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *args, **more)

    monkeypatch.setattr(os, name, refuse)
    with pytest.raises(Fault, match="Permission denied"):
        engine.run(bound, tmp_path / "out")


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE])
def test_a_disk_that_fails_while_results_are_compared_is_said(number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_llama(tmp_path / "hf")
    ckptc.convert(tmp_path / "hf", tmp_path / "out", to="nxdt")
    monkeypatch.setattr(os, "preadv", failing("preadv", number, 3))
    with pytest.raises(Fault, match=rf"unreadable-file.*{os.strerror(number)}"):
        ckptc.verify(tmp_path / "hf", tmp_path / "out")


def touch(path: Path) -> None:
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def replaced(path: Path) -> None:
    facts, other = path.stat(), path.with_name("new")
    other.write_bytes(path.read_bytes())
    os.utime(other, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    other.rename(path)


def longer(path: Path) -> None:
    with open(path, "ab") as file:
        file.write(b"#")


CHANGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "written": (touch, "it was written to"),
    "replaced": (replaced, "another file stands in its place"),
    "longer": (longer, r"it had [0-9,]+ bytes and has [0-9,]+"),
    "shorter": (lambda path: os.truncate(path, 10), ""),
    "gone": (Path.unlink, "it is gone"),
}


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("file", ["source.raw", "tokenizer.model"])
@pytest.mark.parametrize("after", [0, 7])
@pytest.mark.parametrize("resume", [False, True])
def test_a_source_that_changes_while_it_is_read_ends_the_run(
    resume: bool, after: int, file: str, how: str, bound: Bound, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.pwritev, iter(range(1 << 30))
    change, sentence = CHANGES[how]

    def pwritev(*args: Any) -> int:
        if next(calls) == after:
            change(tmp_path / "in" / file)
        return real(*args)

    monkeypatch.setattr(os, "pwritev", pwritev)
    with pytest.raises(Fault, match=rf"(source-changed|truncated-file).*in/{file}.*{sentence}"):
        engine.run(bound, tmp_path / "out", memory=20_000, resume=resume)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", CHANGES)
def test_a_source_that_changed_since_it_was_opened_is_not_read(how: str, tmp_path: Path) -> None:
    write_llama(tmp_path / "hf")
    plan = ckptc.plan(tmp_path / "hf", to="nxdt")
    CHANGES[how][0](tmp_path / "hf/model-00002-of-00003.safetensors")
    with pytest.raises(Fault, match=r"source-changed|missing-file|truncated-file"):
        plan.run(tmp_path / "out")
    with pytest.raises(Fault, match=r"source-changed|missing-file|truncated-file"):
        list(plan.stream())
    assert os.listdir(tmp_path) == ["hf"]


def test_a_long_run_looks_again_and_again_at_its_source(bound: Bound, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "LOOK_SECONDS", 0.0)
    wrote: list[int] = []
    real = os.pwritev

    def pwritev(*args: Any) -> int:
        wrote.append(1)
        if len(wrote) == 1:
            touch(tmp_path / "in/source.raw")
        time.sleep(0.3)
        return real(*args)

    monkeypatch.setattr(os, "pwritev", pwritev)
    with pytest.raises(Fault, match="source-changed"):
        engine.run(bound, tmp_path / "out", memory=20_000, workers=1, progress=lambda _: None)
    assert len(wrote) < 6, "it ended when it saw the change, not at the end"


def test_no_file_is_mapped_into_memory() -> None:
    """A file that becomes shorter while it is mapped would kill the process (SIGBUS). `mmap.mmap(-1, ..)` maps no file."""
    mapping = {"memmap", "safe_open", "load_file", "numpy.load", "np.load", "torch.load", "from_file"}
    seen = 0
    for room in ("runtime", "ckptc", "compiler", "dsl"):
        for path in sorted((ROOT / room).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
                assert not {called, called.rpartition(".")[2]} & mapping, f"{path}:{node.lineno}"
                if isinstance(node, ast.Call) and called == "mmap.mmap":
                    assert ast.unparse(node.args[0]) == "-1", f"{path}:{node.lineno}"
                    seen += 1
    assert seen


def test_reading_changes_no_stamp(bound: Bound, tmp_path: Path) -> None:
    path = str(tmp_path / "in/source.raw")
    before = stamps.stamp(path)
    engine.run(bound, tmp_path / "out")
    assert stamps.stamp(path) == before
    assert ending.why_not_whole(bound, str(tmp_path / "out")) == ""
