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
from collections import Counter
from collections.abc import Callable, Iterator
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
MOST_KILLS = 40
BYSTANDER = "notes.txt"  # what stands in the destination before, where it is merged into or overwritten


def files_of(path: Path) -> dict[str, bytes]:
    """All files of a folder, or the one file, by name."""
    if path.is_file():
        return {"": path.read_bytes()}
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def rounds(root: Path, count: int, seconds: float, seed: int) -> Iterator[tuple[str, int, int]]:
    """(what was converted, kills, runs that found finished work) of each round. Raises `AssertionError` at the first that ends wrong."""
    source, chance = root / "hf", random.Random(seed)
    write_llama(source)
    wanted: dict[int, dict[str, bytes]] = {}
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
            plain = root / f"plain{which}{ending}"
            plan.run(plain, manifest=True)
            wanted[which] = files_of(plain)
            if ending:
                os.unlink(f"{plain}.ckptc-manifest.json")
        place = root / f"round{number}"
        place.mkdir()
        kills, resumed = _round(plan, place / f"out{ending}", wanted[which], mode, chance)
        shutil.rmtree(place)
        yield f"{layout} {format}{ending} {mode}", kills, resumed


def _round(plan: ckptc.Plan, out: Path, wanted: dict[str, bytes], mode: str, chance: random.Random) -> tuple[int, int]:
    before: dict[str, bytes] = {}
    manifest = mode == "manifest"
    if not manifest:
        wanted = {name: data for name, data in wanted.items() if name != "ckptc-manifest.json"}
    if mode in ("overwrite", "merge"):
        old = out if out.suffix else out / BYSTANDER
        old.parent.mkdir(exist_ok=True)
        old.write_bytes(b"what stood here before")
        before = files_of(out)
    whole = {**before, **wanted} if mode == "merge" else wanted
    kills = resumed = 0
    longest = 0.3  # seconds that a run takes
    while True:
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
        now = files_of(out) if out.exists() else {}
        if mode == "merge":  # it goes file by file, each of which is whole
            assert all(data == whole.get(name) for name, data in now.items()), f"{out} holds what is not whole"
        else:
            assert now in ({}, before, whole), f"{out} holds what is not whole"
        if code == 0:
            longest = max(0.05, time.monotonic() - began)
            if after is None or kills >= 3:
                break
            if mode in ("new", "manifest"):
                (shutil.rmtree if out.is_dir() else os.unlink)(out)
            continue
        assert code == -signal.SIGKILL, f"a run ended with {code}"
        kills += 1
    assert now == whole, f"{out} is not what an uninterrupted run writes"
    left = {each.name for each in out.parent.iterdir()} - {out.name, f"{out.name}.ckptc-manifest.json"}
    assert not left, f"{sorted(left)} are left"
    return kills, resumed


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
    kills: Counter[str] = Counter()
    resumed: Counter[str] = Counter()
    times: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="ckptc-soak-") as folder:
        for what, killed, found in rounds(Path(folder), asked.rounds, asked.seconds, asked.seed):
            kills[what] += killed
            resumed[what] += found
            times[what] += 1
    for what in sorted(times):
        print(f"{what:32} {times[what]:4} rounds {kills[what]:5} kills {resumed[what]:5} resumed")
    print(f"{'all':32} {times.total():4} rounds {kills.total():5} kills {resumed.total():5} resumed")


if __name__ == "__main__":
    main()
