"""`python benchmarks/convert.py`: ckptc beside `cp -r` and beside a plain torch script, whole processes, in turns.

A Llama checkpoint goes from HuggingFace to each framework and back: NxD Training rank files (tp 4, pp 2, replicated key/value
heads), a distributed checkpoint of Megatron-core, Megatron-LM rank files (tp 4, pp 2), a .nemo archive (tp 2).
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from commands import FRAMEWORKS, Run, peers
from llama import layers_for, nbytes, shapes_of, write_llama

import ckptc
from ckptc.runtime.files.window import Window, at_index

# A process begins with the peak memory of the one that started it: so a small one starts it, and measures.
STARTER = """
import os, sys, time
out = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
began = time.perf_counter()
process = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, out, n) for n in (1, 2)])
_, status, used = os.wait4(process, 0)
print(time.perf_counter() - began, used.ru_utime + used.ru_stime, used.ru_maxrss, os.waitstatus_to_exitcode(status))
"""


@dataclass(frozen=True)
class Cost:
    """Of one whole process: seconds, seconds of processor time, peak resident bytes."""

    seconds: float
    processor: float
    peak: int


def measured(command: list[str], log: Path) -> Cost:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}  # as installed programs run
    starter = [sys.executable, "-I", "-S", "-c", STARTER, str(log), *command]
    said = subprocess.run(starter, capture_output=True, text=True, check=True, env=environment).stdout.split()
    if int(said[3]):
        sys.exit(f"{' '.join(command)}\nended with {said[3]}:\n{log.read_text()}")
    return Cost(float(said[0]), float(said[1]), int(said[2]) * (1 if sys.platform == "darwin" else 1024))


def equal(one: Path, two: Path) -> bool:
    """Whether two checkpoints hold the same tensors, byte for byte."""
    sides = [{(t.file if ".pt" in t.file else "", t.name): t.entry.window for t in ckptc.open(path)} for path in (one, two)]
    if sides[0].keys() != sides[1].keys():
        return False
    for key, window in sides[0].items():
        other = sides[1][key]
        if (window.shape, window.dtype) != (other.shape, other.dtype):
            return False
        if not np.array_equal(bytes_of(window), bytes_of(other)):
            return False
    return True


def bytes_of(window: Window) -> np.ndarray:
    """The elements' bytes, of a file where they are in one run, else gathered."""
    if not window.tiles:
        return np.memmap(window.path, np.uint8, "r", window.at, nbytes(window.shape))
    return np.concatenate([bytes_of(at_index(window, (i,))) for i in range(window.shape[0])])


def drop(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def allowed(gigabytes: float) -> float:
    """The target: at most 0.7 of what `cp` takes at 8 GB, and all of it at 1 GB, where the start weighs more."""
    return 0.7 if gigabytes >= 8 else 1.0


def turns(root: Path, gigabytes: float, count: int, frameworks: list[str]) -> None:
    layers = layers_for(gigabytes)
    size = write_llama(root / "hf", layers)
    print(f"Llama, {layers} layers, {len(shapes_of(layers))} tensors, {size / 1e9:.2f} GB of bfloat16; {root}")
    print(f"{platform.machine()}, {os.cpu_count()} processors; {count} turns, `cp -r` in each, sync before each run\n{peers()}\n", flush=True)
    print(f"{'':26}{'median':>9}{'min':>8}{'CPU':>7}{'/ cp':>7}{'target':>8}{'':>9}{'torch /':>9}{'peak memory':>14}")
    for name in frameworks:
        copy = Run("cp -r", root / "copy", ["cp", "-r", str(root / "hf"), str(root / "copy")])
        runs = [copy, *FRAMEWORKS[name](root, layers, allowed(gigabytes))]
        costs: dict[str, list[Cost]] = {}
        for run in runs:  # not counted: bytecode, caches
            measured(run.command, root / "log")
        for _ in range(count):
            for run in runs:
                drop(run.out)
                os.sync()
                costs.setdefault(run.name, []).append(measured(run.command, root / "log"))
        for run in runs:
            show(run, costs)
        made = [run.out for run in runs if run.out.name.startswith("hf-")]
        same = all(equal(path, root / "hf") for path in made)
        print(f"{'':26}{', '.join(path.name for path in made)}: {'equal to the source' if same else 'DIFFERENT FROM THE SOURCE'}", flush=True)
        for run in runs:
            drop(run.out)
        if not same:
            sys.exit(1)


def ratio(costs: dict[str, list[Cost]], name: str, other: str) -> float:
    """Turn by turn, then the median: what drifts falls out."""
    return statistics.median(a.seconds / b.seconds for a, b in zip(costs[name], costs[other], strict=True))


def show(run: Run, costs: dict[str, list[Cost]]) -> None:
    found = costs[run.name]
    times = [cost.seconds for cost in found]
    cells = [f"{statistics.median(times):7.2f} s", f"{min(times):8.2f}", f"{statistics.median(cost.processor for cost in found):7.2f}"]
    over = ratio(costs, run.name, "cp -r")
    cells.append(f"{over:7.2f}")
    cells.append(f"{f'<= {run.target}' if run.target else '':>8}{('met' if over <= run.target else 'not met') if run.target else '':>9}")
    slower = ratio(costs, run.beside, run.name) if run.beside in costs else 0.0
    cells.append(f"{f'{slower:.1f} x' if slower else '':>9}")
    print(f"{run.name:26}{''.join(cells)}{max(cost.peak for cost in found) / 2**20:10.0f} MiB")


def flat(root: Path, frameworks: list[str]) -> None:
    """Peak memory over sizes."""
    print("peak memory, whole process")
    for gigabytes in (0.5, 1, 2, 4):
        layers = layers_for(gigabytes)
        size = write_llama(root / "hf", layers)
        peaks = {}
        for name in frameworks:
            for run in FRAMEWORKS[name](root, layers, 1.0):
                if run.command[1:3] == ["-m", "ckptc"]:
                    peaks[run.name] = measured(run.command, root / "log").peak
        print(f"{size / 1e9:6.2f} GB: " + ", ".join(f"{n} {peak / 2**20:.0f} MiB" for n, peak in peaks.items()), flush=True)
        for path in list(root.iterdir()):
            drop(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", choices=tuple(FRAMEWORKS), action="append", help="a framework, more than once for several (default: all)")
    parser.add_argument("--gb", type=float, default=1.0, help="size of the checkpoint (default: 1)")
    parser.add_argument("--turns", type=int, default=3, help="runs of each command (default: 3)")
    parser.add_argument("--dir", type=Path, default=None, help="where to work, six times the size (default: the temporary folder)")
    parser.add_argument("--flat", action="store_true", help="measure peak memory at 0.5, 1, 2 and 4 GB instead")
    asked = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="ckptc-bench-", dir=asked.dir))
    frameworks = asked.to or list(FRAMEWORKS)
    try:
        flat(root, frameworks) if asked.flat else turns(root, asked.gb, asked.turns, frameworks)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
