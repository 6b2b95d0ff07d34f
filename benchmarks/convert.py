"""`python benchmarks/convert.py`: ckptc beside `cp -r` and beside a plain torch script, whole processes, in turns.

A Llama checkpoint goes from HuggingFace to NxD Training rank files (tp 4, pp 2, replicated key/value heads) and back; with
`--to megatron`, to a distributed checkpoint of Megatron-core and back.
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
from llama import layers_for, nbytes, shapes_of, write_llama

import ckptc
from ckptc.runtime.files.window import Window, at_index

TP, PP, KV_MULTIPLIER = 4, 2, 2
HERE = Path(__file__).resolve().parent


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


Commands = dict[str, tuple[Path, list[str]]]


def commands(root: Path, layers: int, to: str) -> Commands:
    """Name to (what it writes, the command), in the order of a turn."""
    return {"cp": (root / "copy", ["cp", "-r", str(root / "hf"), str(root / "copy")])} | (to_megatron if to == "megatron" else to_nxdt)(root, layers)


def to_megatron(root: Path, layers: int) -> Commands:
    hf, dist = root / "hf", root / "ckptc-dist"
    own = [sys.executable, "-m", "ckptc", "convert"]
    plain = [sys.executable, str(HERE / "plain_dist.py")]
    return {
        "ckptc to dist": (dist, [*own, str(hf), str(dist), "--to", "megatron"]),
        "torch to dist": (root / "torch-dist", [*plain, "to-dist", str(hf), str(root / "torch-dist"), str(layers)]),
        "ckptc to HF": (root / "ckptc-hf", [*own, str(dist), str(root / "ckptc-hf"), "--to", "hf", "--config", str(hf / "config.json")]),
        "torch to HF": (root / "torch-hf", [*plain, "to-hf", str(root / "torch-dist"), str(root / "torch-hf"), str(layers)]),
    }


def to_nxdt(root: Path, layers: int) -> Commands:
    hf, ranks = root / "hf", root / "ckptc-ranks"
    own = [sys.executable, "-m", "ckptc", "convert"]
    plain = [sys.executable, str(HERE / "plain_torch.py")]
    numbers = [str(n) for n in (TP, PP, KV_MULTIPLIER, layers)]
    there = ["--to", "nxdt", "--tp", str(TP), "--pp", str(PP), "--set", f"kv_multiplier={KV_MULTIPLIER}"]
    back = ["--to", "hf", "--config", str(hf / "config.json"), "--from-set", f"kv_multiplier={KV_MULTIPLIER}", "--from-set", "hw=trn1"]
    return {
        "ckptc to ranks": (ranks, [*own, str(hf), str(ranks), *there]),
        "torch to ranks": (root / "torch-ranks", [*plain, "to-ranks", str(hf), str(root / "torch-ranks"), *numbers]),
        "ckptc to HF": (root / "ckptc-hf", [*own, str(ranks), str(root / "ckptc-hf"), *back]),
        "torch to HF": (root / "torch-hf", [*plain, "to-hf", str(ranks), str(root / "torch-hf"), *numbers]),
    }


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
    if path.exists():
        shutil.rmtree(path)


def turns(root: Path, gigabytes: float, count: int, to: str) -> None:
    layers = layers_for(gigabytes)
    size = write_llama(root / "hf", layers)
    print(f"Llama, {layers} layers, {len(shapes_of(layers))} tensors, {size / 1e9:.2f} GB of bfloat16; {root}")
    print(f"{platform.machine()}, {os.cpu_count()} processors; {count} turns, sync before each run\n", flush=True)
    costs: dict[str, list[Cost]] = {}
    jobs = commands(root, layers, to)
    for _, command in jobs.values():  # not counted: bytecode, caches
        measured(command, root / "log")
    for turn in range(count):
        for name, (out, command) in jobs.items():
            drop(out)
            os.sync()
            costs.setdefault(name, []).append(measured(command, root / "log"))
        print(f"turn {turn + 1}: " + ", ".join(f"{name} {c[-1].seconds:.2f} s" for name, c in costs.items()), flush=True)
    show(costs, size)
    there = "dist" if to == "megatron" else "ranks"
    pairs = [(f"ckptc-{there}", f"torch-{there}"), ("ckptc-hf", "hf"), ("torch-hf", "hf")]
    for left, right in pairs:
        same = equal(root / left, root / right)
        print(f"{left} {'equals' if same else 'DIFFERS FROM'} {right}")
        if not same:
            sys.exit(1)


def show(costs: dict[str, list[Cost]], size: int) -> None:
    def ratio(name: str, other: str) -> str:
        """Turn by turn, then the median: what drifts falls out."""
        if other == name or name == "cp":
            return ""
        return f"{statistics.median(a.seconds / b.seconds for a, b in zip(costs[name], costs[other], strict=True)):.2f}"

    print(f"\n{'':16}{'median':>9}{'min':>8}{'max':>8}{'CPU':>8}{'GB/s':>7}{'/ cp':>7}{'/ torch':>9}{'peak memory':>14}")
    for name, found in costs.items():
        times = [cost.seconds for cost in found]
        middle, processor = statistics.median(times), statistics.median(cost.processor for cost in found)
        print(
            f"{name:16}{middle:7.2f} s{min(times):8.2f}{max(times):8.2f}{processor:8.2f}{size / middle / 1e9:7.2f}"
            f"{ratio(name, 'cp'):>7}{ratio(name, name.replace('ckptc', 'torch')):>9}"
            f"{max(cost.peak for cost in found) / 2**20:10.0f} MiB"
        )
    print()


def flat(root: Path, to: str) -> None:
    """Peak memory over sizes."""
    print("peak memory, whole process")
    for gigabytes in (0.5, 1, 2, 4):
        layers = layers_for(gigabytes)
        size = write_llama(root / "hf", layers)
        peaks = {}
        for name, (_, command) in commands(root, layers, to).items():
            if name.startswith("ckptc"):
                peaks[name] = measured(command, root / "log").peak
        print(f"{size / 1e9:6.2f} GB: " + ", ".join(f"{n} {peak / 2**20:.0f} MiB" for n, peak in peaks.items()), flush=True)
        for path in list(root.iterdir()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", choices=("nxdt", "megatron"), default="nxdt", help="the framework (default: nxdt)")
    parser.add_argument("--gb", type=float, default=2.0, help="size of the checkpoint (default: 2)")
    parser.add_argument("--turns", type=int, default=5, help="runs of each command (default: 5)")
    parser.add_argument("--dir", type=Path, default=None, help="where to work, five times the size (default: the temporary folder)")
    parser.add_argument("--flat", action="store_true", help="measure peak memory at 0.5, 1, 2 and 4 GB instead")
    asked = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="ckptc-bench-", dir=asked.dir))
    try:
        flat(root, asked.to) if asked.flat else turns(root, asked.gb, asked.turns, asked.to)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
