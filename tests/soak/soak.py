"""`python -m tests.soak.soak [--rounds N] [--seconds S] [--seed K]`: runs are killed at random moments until they get through.

Each round converts a small Llama to one target format. A child process runs `resume=True`, with memory, workers and speed drawn anew each
time, and gets SIGKILL after a random time; then the next one goes on. After every kill the destination is absent, or what it was before,
or whole. At the end it is, byte for byte, what an uninterrupted run writes, and nothing else is left. The children are forked, because a
new interpreter takes longer than these runs do.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ckptc
from ckptc.demo import write_llama
from ckptc.runtime.engine import target_files
from ckptc.runtime.journal import partial

# What each round converts to: layout, format, and the ending of the destination's name.
TARGETS = (
    ("hf", "safetensors", ""), ("hf", "bin", ""), ("nxdt", "pt", ""), ("nxdt", "xser", ""), ("megatron", "torch_dist", ""),
    ("megatron", "zarr", ""), ("megatron-lm", "megatron", ""), ("nemo2", "torch_dist", ""), ("nemo", "nemo", ""),
    ("nemo", "nemo", ".nemo"), ("nemo-dist", "torch_dist", ".nemo"),
)  # fmt: skip
DEGREES = {"nxdt": {"tp": 2, "pp": 2}, "megatron-lm": {"tp": 2}, "nemo": {"tp": 2, "pp": 5}}
MODES = ("new", "new", "overwrite", "merge", "manifest")
LEAST_KILLS, MOST_KILLS, MOST_RUNS = 3, 40, 200  # of a round
MANIFEST = "ckptc-manifest.json"
BYSTANDER = "notes.txt"  # what stands in the destination before, where it is merged into or overwritten


@dataclass
class Count:
    """Of rounds: how many, runs that were killed, runs that found finished work, files that were compared at the end."""

    rounds: int = 0
    kills: int = 0
    resumed: int = 0
    compared: int = 0

    def add(self, other: Count) -> None:
        self.rounds += other.rounds
        self.kills += other.kills
        self.resumed += other.resumed
        self.compared += other.compared

    def __str__(self) -> str:
        return f"{self.rounds:4} rounds {self.kills:5} kills {self.resumed:5} resumed {self.compared:6} files compared"


def files_of(path: Path) -> dict[str, bytes]:
    """All files of a folder, or the one file, by name; nothing where there is neither."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def manifest_of(path: Path) -> bytes:
    """The manifest in a folder, or beside a file."""
    return (path / MANIFEST if path.is_dir() else path.with_name(f"{path.name}.{MANIFEST}")).read_bytes()


def rounds(root: Path, count: int, seconds: float, seed: int) -> Iterator[tuple[str, Count]]:
    """What was converted, and the counts, of each round. Raises `AssertionError` at the first that ends wrong."""
    source, chance = root / "hf", random.Random(seed)
    write_llama(source)
    wanted: dict[int, tuple[dict[str, bytes], bytes]] = {}
    plans: dict[int, ckptc.Plan] = {}
    began = time.monotonic()
    for number in range(count):
        if time.monotonic() - began > seconds:
            return
        which = number % len(TARGETS)
        layout, format, ending = TARGETS[which]
        mode = MODES[number // len(TARGETS) % len(MODES)] if number >= len(TARGETS) else "new"
        if mode == "merge" and ending:
            mode = "overwrite"
        if which not in plans:
            plans[which] = ckptc.plan(source, to=layout, format=format, settings=DEGREES.get(layout, {}))
        plan = plans[which]
        if which not in wanted:
            plain = root / f"plain{which}" / f"out{ending}"
            plain.parent.mkdir()
            plan.run(plain, manifest=True)
            wanted[which] = files_of(plain), manifest_of(plain)
        place = root / f"round{number}"
        place.mkdir()
        found = _round(plan, place / f"out{ending}", *wanted[which], mode, chance)
        shutil.rmtree(place)
        yield f"{layout} {format}{ending} {mode}", found


def _round(plan: ckptc.Plan, out: Path, wanted: dict[str, bytes], described: bytes, mode: str, chance: random.Random) -> Count:
    manifest = mode == "manifest"
    if not manifest:
        wanted = {name: data for name, data in wanted.items() if name != MANIFEST}
    before = _begun(out, mode)
    whole = {**before, **wanted} if mode == "merge" else wanted
    assert wanted, "an uninterrupted run wrote nothing"
    kills = resumed = runs = 0
    longest = 0.3  # seconds that a run takes
    while True:
        runs += 1
        assert runs <= MOST_RUNS, f"{kills} of {runs} runs were killed in time"
        slow = chance.choice((0.0, 0.001, 0.004))
        options = {
            "memory": chance.choice((120_000, 400_000, 64 << 20)), "workers": chance.choice((1, 2, 3)), "resume": True,
            "overwrite": mode == "overwrite", "merge": mode == "merge", "manifest": manifest,
        }  # fmt: skip
        journal = Path(partial.folder_of(str(out))) / "journal"
        resumed += journal.exists() and journal.read_bytes().count(b"\n") > 1
        after = chance.uniform(0.0, longest * chance.choice((0.4, 1.1))) if kills < MOST_KILLS else None
        began = time.monotonic()
        code = _in_child(lambda slow=slow, options=options: _convert(plan, out, slow, options), after)  # type: ignore[misc]
        now = files_of(out)
        if mode == "merge":  # it goes file by file, each of which is whole
            assert before.items() <= now.items() <= whole.items(), f"{out} holds what is not whole, or lacks what was there"
        else:
            assert now in ({}, before, whole), f"{out} holds what is not whole"
        if code == 0:
            longest = max(0.05, time.monotonic() - began)
            if after is None or kills >= LEAST_KILLS:
                break
            _begun(out, mode)
            continue
        assert code == -signal.SIGKILL, f"a run ended with {code}"
        kills += 1
    assert now == whole, f"{out} is not what an uninterrupted run writes"
    if manifest:
        assert manifest_of(out) == described, f"the manifest of {out} is not what an uninterrupted run writes"
    left = {each.name for each in out.parent.iterdir()} - {out.name, f"{out.name}.{MANIFEST}" if manifest else ""}
    assert not left, f"{sorted(left)} are left"
    return Count(1, kills, resumed, len(now))


def _begun(out: Path, mode: str) -> dict[str, bytes]:
    """Makes the destination what it is before the first run of a round: its files."""
    if out.exists():
        (shutil.rmtree if out.is_dir() else os.unlink)(out)
    if mode in ("overwrite", "merge"):
        old = out if out.suffix else out / BYSTANDER
        old.parent.mkdir(exist_ok=True)
        old.write_bytes(b"what stood here before")
    return files_of(out)


def _convert(plan: ckptc.Plan, out: Path, slow: float, options: dict[str, object]) -> None:
    partial._EVERY_SECONDS = 0.0
    write = os.pwritev

    def slowly(*args: object) -> int:
        time.sleep(slow)
        return write(*args)  # type: ignore[arg-type]

    if slow:
        target_files.os.pwritev = slowly  # type: ignore[assignment]
    plan.run(out, **options)  # type: ignore[arg-type]


def _in_child(do: Callable[[], None], after: float | None) -> int:
    """The exit code of a child that does this; it is killed `after` seconds."""
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        code = 1
        try:
            do()
            code = 0
        except BaseException as problem:
            print(f"{type(problem).__name__}: {problem}", file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    if after is not None:
        time.sleep(after)
        os.kill(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status)


def main() -> None:
    given = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[2])
    given.add_argument("--rounds", type=int, default=330)
    given.add_argument("--seconds", type=float, default=600.0)
    given.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    asked = given.parse_args()
    print(f"seed {asked.seed}", flush=True)
    counts: dict[str, Count] = {}
    with tempfile.TemporaryDirectory(prefix="ckptc-soak-") as folder:
        for what, found in rounds(Path(folder), asked.rounds, asked.seconds, asked.seed):
            counts.setdefault(what, Count()).add(found)
    total = Count()
    for what in sorted(counts):
        print(f"{what:32} {counts[what]}")
        total.add(counts[what])
    print(f"{'all':32} {total}")
    check(total)


def check(total: Count) -> None:
    """That the rounds did what they claim: nothing that was not killed, not gone on with or not compared passes."""
    assert total.rounds, "no round was run: give it more --seconds"
    assert total.kills >= LEAST_KILLS * total.rounds, f"{total.kills} kills in {total.rounds} rounds"
    assert total.resumed, "no run found work to go on with"
    assert total.compared >= total.rounds, "a result was not compared"


if __name__ == "__main__":
    main()
