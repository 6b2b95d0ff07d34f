"""`python benchmarks/convert.py`: ckptc beside `cp -r` and beside a plain torch script, whole processes, in turns.

A Llama checkpoint goes from HuggingFace to NxD Training rank files (tp 4, pp 2, replicated key/value heads) and back.
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
import time
from pathlib import Path

import numpy as np
from llama import layers_for, nbytes, shapes_of, write_llama

import ckptc

TP, PP, KV_MULTIPLIER = 4, 2, 2
HERE = Path(__file__).resolve().parent


def measured(command: list[str], log: Path) -> tuple[float, int]:
    """Seconds and peak resident bytes of one process, of which nothing else is asked."""
    with log.open("wb") as said:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)}\nended with {process.returncode}:\n{log.read_text()}")
    return seconds, used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def commands(root: Path, layers: int) -> dict[str, tuple[Path, list[str]]]:
    """Name to (what it writes, the command), in the order of a turn."""
    hf, ranks = root / "hf", root / "ckptc-ranks"
    own = [sys.executable, "-m", "ckptc", "convert"]
    plain = [sys.executable, str(HERE / "plain_torch.py")]
    numbers = [str(n) for n in (TP, PP, KV_MULTIPLIER, layers)]
    there = ["--to", "nxdt", "--tp", str(TP), "--pp", str(PP), "--set", f"kv_multiplier={KV_MULTIPLIER}"]
    back = ["--to", "hf", "--config", str(hf / "config.json"), "--from-set", f"kv_multiplier={KV_MULTIPLIER}"]
    return {
        "cp": (root / "copy", ["cp", "-r", str(hf), str(root / "copy")]),
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
        size = nbytes(window.shape)
        a, b = (np.memmap(w.path, np.uint8, "r", w.at, size) for w in (window, other))
        if not np.array_equal(a, b):
            return False
    return True


def drop(path: Path) -> None:
    if path.exists():
        shutil.rmtree(path)


def turns(root: Path, gigabytes: float, count: int) -> None:
    layers = layers_for(gigabytes)
    size = write_llama(root / "hf", layers)
    print(f"Llama, {layers} layers, {len(shapes_of(layers))} tensors, {size / 1e9:.2f} GB of bfloat16; {root}")
    print(f"{platform.machine()}, {os.cpu_count()} processors; {count} turns, sync before each run\n", flush=True)
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, int] = {}
    jobs = commands(root, layers)
    for turn in range(count):
        for name, (out, command) in jobs.items():
            drop(out)
            os.sync()
            spent, peak = measured(command, root / "log")
            seconds.setdefault(name, []).append(spent)
            peaks[name] = max(peaks.get(name, 0), peak)
            if name == "cp":
                drop(out)
        print(f"turn {turn + 1}: " + ", ".join(f"{name} {times[-1]:.2f} s" for name, times in seconds.items()), flush=True)
    show(seconds, peaks, size)
    pairs = [("ckptc-ranks", "torch-ranks"), ("ckptc-hf", "hf"), ("torch-hf", "hf")]
    for left, right in pairs:
        same = equal(root / left, root / right)
        print(f"{left} {'equals' if same else 'DIFFERS FROM'} {right}")
        if not same:
            sys.exit(1)


def show(seconds: dict[str, list[float]], peaks: dict[str, int], size: int) -> None:
    middle = {name: statistics.median(times) for name, times in seconds.items()}

    def ratio(name: str, other: str) -> str:
        """Turn by turn, then the median: what drifts falls out."""
        if other not in seconds or other == name or name == "cp":
            return ""
        return f"{statistics.median(a / b for a, b in zip(seconds[name], seconds[other], strict=True)):.2f}"

    print(f"\n{'':16}{'median':>9}{'min':>8}{'max':>8}{'GB/s':>7}{'/ cp':>7}{'/ torch':>9}{'peak memory':>14}")
    for name, times in seconds.items():
        other = name.replace("ckptc", "torch")
        print(
            f"{name:16}{middle[name]:7.2f} s{min(times):8.2f}{max(times):8.2f}{size / middle[name] / 1e9:7.2f}"
            f"{ratio(name, 'cp'):>7}{ratio(name, other):>9}{peaks[name] / 2**20:10.0f} MiB"
        )
    print()


def flat(root: Path) -> None:
    """Peak memory over sizes."""
    print("peak memory, whole process")
    for gigabytes in (0.5, 1, 2, 4):
        layers = layers_for(gigabytes)
        size = write_llama(root / "hf", layers)
        peaks = {}
        for name, (_, command) in commands(root, layers).items():
            if name.startswith("ckptc"):
                peaks[name] = measured(command, root / "log")[1]
        print(f"{size / 1e9:6.2f} GB: " + ", ".join(f"{n} {peak / 2**20:.0f} MiB" for n, peak in peaks.items()), flush=True)
        for path in list(root.iterdir()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=2.0, help="size of the checkpoint (default: 2)")
    parser.add_argument("--turns", type=int, default=5, help="runs of each command (default: 5)")
    parser.add_argument("--dir", type=Path, default=None, help="where to work, five times the size (default: the temporary folder)")
    parser.add_argument("--flat", action="store_true", help="measure peak memory at 0.5, 1, 2 and 4 GB instead")
    asked = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="ckptc-bench-", dir=asked.dir))
    try:
        flat(root) if asked.flat else turns(root, asked.gb, asked.turns)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
