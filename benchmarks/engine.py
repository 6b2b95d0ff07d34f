"""`python benchmarks/engine.py [GB]`: HF safetensors to tp4 pp2 rank files and back, beside `cp -r` of the same data."""

from __future__ import annotations

import json
import os
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ckptc.runtime import engine
from ckptc.runtime.bind import Bound, bind
from ckptc.runtime.plan import Box, Loop, Over, Plan, Proof, Side, Step, Stored
from ckptc.runtime.window import Entry, Window, row_major

TP, PP, HIDDEN, WIDE, VOCAB = 4, 2, 2048, 8192, 32000


@dataclass
class Files:
    path: str
    entries: tuple[Entry, ...]
    side_files: tuple[str, ...] = ()


def line(*extents: int) -> tuple[Box, ...]:
    eye = [tuple(int(k == j) for j in range(len(extents))) for k in range(len(extents))]
    return (Box((0,) * len(extents), tuple(zip(extents, eye, strict=True))),)


def plans(layers: int) -> tuple[Plan, Plan]:
    """A Llama-like conversion and its reverse."""
    per = layers // PP
    own, ranks = ("layer",), ("tp", "pp", "layer")
    hf, mega, there, back = [], [], [], []

    def add(name: str, full: tuple[int, int], part: tuple[int, int], kind: str) -> None:
        hf.append(Stored(f"model.layers.{{layer}}.{name}.weight", "", own, line(layers), full))
        mega.append(Stored(f"layers.{{layer}}.{name}", "tp{tp}_pp{pp}/w.pt", ranks, line(TP, PP, per), part, 1))
        by = {"rows": part[0] * full[1], "columns": part[1], "same": 0}[kind]
        n = len(hf) - 1
        if kind == "columns":
            loops = (Loop(full[0], full[1], part[1]), Loop(part[1], 1, 1))
            turned = (Loop(full[0], part[1], full[1]), Loop(part[1], 1, 1))
        else:
            loops = turned = (Loop(part[0] * part[1], 1, 1),)
        over = (
            Over(TP, (0,), (1, 0, 0), by), Over(PP, (per,), (0, 1, 0)), Over(per, (1,), (0, 0, 1)),
        )  # fmt: skip
        there.append(Step(n, n, (0,), (0, 0, 0), over, 0, 0, loops, kind))
        reverse = tuple(
            Over(o.extent, o.target, o.source, 0, o.source_at) for o in (over if kind != "same" else over[1:])
        )
        back.append(Step(n, n, (0, 0, 0), (0,), reverse, 0, 0, turned, kind))

    for name in ("q", "k", "v"):
        add(name, (HIDDEN, HIDDEN), (HIDDEN // TP, HIDDEN), "rows")
    add("o", (HIDDEN, HIDDEN), (HIDDEN, HIDDEN // TP), "columns")
    for name in ("gate", "up"):
        add(name, (WIDE, HIDDEN), (WIDE // TP, HIDDEN), "rows")
    add("down", (HIDDEN, WIDE), (HIDDEN, WIDE // TP), "columns")
    for name in ("norm1", "norm2"):
        add(name, (1, HIDDEN), (1, HIDDEN), "same")
    hf.append(Stored("embed", "", (), (Box(()),), (VOCAB, HIDDEN)))
    mega.append(Stored("embed", "tp{tp}_pp0/w.pt", ("tp",), line(TP), (VOCAB // TP, HIDDEN)))
    size = VOCAB // TP * HIDDEN
    n = len(hf) - 1
    there.append(Step(n, n, (), (0,), (Over(TP, (), (1,), size),), 0, 0, (Loop(size, 1, 1),), "range"))
    back.append(Step(n, n, (0,), (), (Over(TP, (1,), (), 0, size),), 0, 0, (Loop(size, 1, 1),), "range"))
    none = Proof(0, 0, 0, 0, 0)
    one = Side("hf", "safetensors", (), (), tuple(hf), none)
    two = Side("ranks", "pt", (("tp", TP), ("pp", PP)), (), tuple(mega), none)
    return Plan("bench", one, two, tuple(there)), Plan("bench", two, one, tuple(back))


def make(folder: Path, plan: Plan) -> Files:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 2**16, 1 << 24, dtype=np.uint16)
    header: dict[str, object] = {}
    at, names = 0, []
    for stored in plan.source.stored:
        for i in range(stored.boxes[0].loops[0][0] if stored.coords else 1):
            name = stored.name.format(layer=i)
            size = 2 * int(np.prod(stored.shape))
            names.append((name, stored.shape, at))
            header[name] = {"dtype": "BF16", "shape": list(stored.shape), "data_offsets": [at, at + size]}
            at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path = folder / "model.safetensors"
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        left = at // 2
        while left:
            n = min(left, len(noise))
            noise[:n].tofile(file)
            left -= n
    base = 8 + len(text)
    entries = tuple(
        Entry(name, path.name, Window(str(path), base + start, shape, row_major(shape), "bfloat16"))
        for name, shape, start in names
    )
    return Files(str(folder), entries)


def written(bound: Bound, out: Path) -> Files:
    entries = []
    for file in bound.files:
        for region in file.layout.regions:
            window = Window(str(out / file.name), region.at, region.shape, row_major(region.shape), region.dtype)
            entries.append(Entry(region.name, file.name, window))
    return Files(str(out), tuple(entries))


def job(folder: str, layers: int, way: str) -> None:
    """In a process of its own: one conversion, timed inside; peak memory printed."""
    began = time.perf_counter()
    root = Path(folder)
    there, back = plans(layers)
    files = json.loads((root / "entries.json").read_text())
    parse = [Entry(n, f, Window(p, a, tuple(s), row_major(tuple(s)), "bfloat16")) for n, f, p, a, s in files[way]]
    bound = bind(there if way == "there" else back, Files(str(Path(parse[0].window.path).parent), tuple(parse)))
    ready = time.perf_counter()
    report = engine.run(bound, root / way, overwrite=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"bind": round(ready - began, 3), "run": round(report.seconds, 3), "rss": round(peak),
                      "buffers": report.peak_buffer_bytes >> 20, "calls": report.kernel_calls}))  # fmt: skip


def main() -> None:
    gigabytes = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    turns = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    per_layer = 2 * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * WIDE)
    layers = max(PP, int(gigabytes * 1e9 / per_layer) // PP * PP)
    root = Path(tempfile.mkdtemp(prefix="ckptc-bench-"))
    try:
        there, back = plans(layers)
        (root / "in").mkdir()
        checkpoint = make(root / "in", there)
        bound = bind(there, checkpoint)
        ways = {"there": checkpoint.entries, "back": written(bound, root / "there").entries}
        (root / "entries.json").write_text(json.dumps({
            way: [(e.name, e.file, e.window.path, e.window.at, e.window.shape) for e in entries]
            for way, entries in ways.items()
        }))  # fmt: skip
        times: dict[str, list[float]] = {}
        last: dict[str, str] = {}
        for _ in range(turns):
            for what, command in {
                "cp -r": ["cp", "-r", str(root / "in"), str(root / "copy")],
                "there": [sys.executable, __file__, "job", str(root), str(layers), "there"],
                "cp -r ranks": ["cp", "-r", str(root / "there"), str(root / "copy2")],
                "back": [sys.executable, __file__, "job", str(root), str(layers), "back"],
            }.items():
                for old in ("copy", "copy2", *([what] if what in ("there", "back") else ())):
                    shutil.rmtree(root / old, ignore_errors=True)
                os.sync()
                began = time.perf_counter()
                said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                times.setdefault(what, []).append(time.perf_counter() - began)
                last[what] = said.strip()
        one, two = root / "in/model.safetensors", root / "back/model.safetensors"
        equal = written_equal(checkpoint, bind(back, written(bound, root / "there")), root / "back", one, two)
        size = one.stat().st_size / 1e9
        print(f"{size:.2f} GB, {layers} layers; round trip equal: {equal}")
        for what, spent in times.items():
            middle = statistics.median(spent)
            print(f"{what:12} {middle:6.2f} s  {size / middle:5.2f} GB/s  all {[round(x, 2) for x in spent]}  {last[what]}")
    finally:
        shutil.rmtree(root)


def written_equal(checkpoint: Files, bound: Bound, out: Path, one: Path, two: Path) -> bool:
    first, second = np.memmap(one, np.uint8, "r"), np.memmap(two, np.uint8, "r")
    places = {r.name: r for file in bound.files for r in file.layout.regions}
    return all(
        np.array_equal(first[e.window.at : e.window.at + places[e.name].nbytes],
                       second[places[e.name].at : places[e.name].at + places[e.name].nbytes])
        for e in checkpoint.entries
    )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["job"]:
        job(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        main()
