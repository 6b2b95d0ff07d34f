"""The engine against the slow reference, with budgets that cut at odd places."""

from __future__ import annotations

import os
import random
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptc.runtime.binding.bind import Bound, bind
from ckptc.runtime.engine import destination, engine
from ckptc.runtime.engine import target_files as writing
from ckptc.runtime.engine.schedule import peak_buffer_bytes
from ckptc.runtime.fault import Fault
from ckptc.runtime.files.window import ITEM_BYTES, Entry, SideFile, Window, row_major
from ckptc.runtime.plan.plan import Loop, Over, Plan, Step, Stored

from .random_plans import Drawn, box, plans, side
from .reference_plan import coords, execute
from .tiles import laid_out

FORMS = st.sampled_from(["plain", "turned", "tiled"])
LAX = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@dataclass
class Raw:
    """A checkpoint in one raw file."""

    path: str
    entries: tuple[Entry, ...]
    beside: tuple[SideFile, ...] = ()


def put(folder: Path, plan: Plan, dtypes: list[str], seed: int = 0, form: str = "plain") -> tuple[Raw, dict[Any, Any]]:
    """A random checkpoint of the plan's source; `form` is `turned` for every matrix with its
    dimensions reversed, `tiled` for tensors in blocks in several files."""
    rng = np.random.default_rng(seed)
    path = folder / "source.raw"
    entries: list[Entry] = []
    values: dict[Any, Any] = {}
    with path.open("wb") as file:
        for number, (stored, dtype) in enumerate(zip(plan.source.stored, dtypes, strict=True)):
            for place in coords(stored):
                name = stored.name.format(**dict(zip(stored.coords, place, strict=True)))
                data = rng.integers(0, 250, stored.shape)
                if form == "tiled" and data.size:
                    items = np.frombuffer(as_type(data, dtype), f"V{ITEM_BYTES[dtype]}").reshape(data.shape)
                    tiles = laid_out(folder, items, random.Random(len(entries)), len(entries) % 2, dtype)
                    entries.append(Entry(name, "source.raw", tiles))
                    values[number, place] = data.reshape(-1).tolist()
                    continue
                turned = form == "turned"
                flat = data.T if turned else data
                kept = as_type(flat, dtype)
                file.write(b"#" * int(rng.integers(0, 5)))
                file.write(b"#" * (-file.tell() % ITEM_BYTES[dtype]))
                strides = row_major(stored.shape[::-1])[::-1] if turned else row_major(stored.shape)
                entries.append(Entry(name, "source.raw", Window(str(path), file.tell(), stored.shape, strides, dtype)))
                file.write(kept)
                values[number, place] = data.reshape(-1).tolist()
    return Raw(str(folder), tuple(entries)), values


def as_type(data: Any, dtype: str) -> bytes:
    if dtype == "bfloat16":
        wide = np.ascontiguousarray(data, np.float32).view(np.uint32)
        assert not (wide & 0xFFFF).any()
        return (wide >> 16).astype(np.uint16).tobytes()
    return np.ascontiguousarray(data).astype(dtype).tobytes()


def from_type(data: bytes, dtype: str) -> list[float]:
    if dtype == "bfloat16":
        return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32).tolist()
    return np.frombuffer(data, dtype).tolist()


def written(bound: Bound, out: Path) -> dict[Any, list[float]]:
    """The target tensors read back from their regions, each file checked for size and checksums."""
    got: dict[Any, list[float]] = {}
    for file in bound.files:
        data = (out / file.name).read_bytes()
        assert len(data) == file.layout.size
        crcs = []
        for i, (region, number) in enumerate(zip(file.layout.regions, file.targets, strict=True)):
            part = data[region.at : region.at + region.nbytes]
            crcs.append(zlib.crc32(part))
            assert data[region.at - len(region.lead) : region.at] == region.lead
            trail = file.layout.trail(i, crcs[-1])
            assert data[region.at + region.nbytes :][: len(trail)] == trail
            tensor = bound.tensors[number]
            place = tuple(bound.targets[tensor.family].rows[tensor.row].tolist())
            got[tensor.family, place] = from_type(part, tensor.dtype)
        tail = file.layout.tail(crcs)
        assert data.endswith(tail)
    return got


@LAX
@given(plans(), st.integers(150, 4000), st.integers(1, 3), FORMS)
def test_a_plan_gives_what_the_reference_gives(drawn: Drawn, memory: int, workers: int, form: str) -> None:
    memory *= workers
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        checkpoint, values = put(folder / "in", drawn.plan, drawn.dtypes, form=form)
        bound = bind(drawn.plan, checkpoint)
        assert peak_buffer_bytes(bound, memory, workers) <= memory
        report = engine.run(bound, folder / "out", memory=memory, workers=workers)
        assert report.peak_buffer_bytes <= memory
        wanted = execute(drawn.plan, values)
        assert written(bound, folder / "out") == wanted
        streamed = list(engine.stream(bound, {"tp": 0}, memory=memory))
        order = [bound.tensors[i] for i in bound.order if bound.coords(bound.tensors[i])["tp"] == 0]
        assert [item[0] for item in streamed] == [tensor.name for tensor in order]
        for (_, dtype, _, data), tensor in zip(streamed, order, strict=True):
            place = tuple(bound.targets[tensor.family].rows[tensor.row].tolist())
            assert from_type(data.tobytes(), dtype) == wanted[tensor.family, place]


@settings(LAX, max_examples=40)
@given(plans(("float32", "bfloat16", "float16", "float64")), FORMS)
def test_casts_and_arithmetic_follow_the_reference(drawn: Drawn, form: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").mkdir()
        checkpoint, values = put(folder / "in", drawn.plan, drawn.dtypes, form=form)
        bound = bind(drawn.plan, checkpoint)
        engine.run(bound, folder / "out", memory=8 << 20, workers=2)

        def near(x: float) -> float:
            return x * 1.0

        wanted = execute(drawn.plan, values, lambda x, step: near(x * step.scale + step.shift))
        for key, got in written(bound, folder / "out").items():
            assert np.allclose(got, wanted[key], rtol=2**-8)


def llama(layers: int = 4, tp: int = 2, hidden: int = 64, wide: int = 96) -> Plan:
    """Columns of `down` and rows of `up` per rank, a norm on every rank."""
    source = (
        Stored("layers.{layer}.up", "", ("layer",), (box((layers,)),), (wide, hidden)),
        Stored("layers.{layer}.down", "", ("layer",), (box((layers,)),), (hidden, wide)),
        Stored("layers.{layer}.norm", "", ("layer",), (box((layers,)),), (hidden,)),
    )
    part = wide // tp
    two = ("tp", "layer")
    target = (
        Stored("l.{layer}.up", "tp{tp}.pt", two, (box((tp, layers)),), (part, hidden)),
        Stored("l.{layer}.down", "tp{tp}.pt", two, (box((tp, layers)),), (hidden, part)),
        Stored("l.{layer}.norm", "tp{tp}.pt", two, (box((tp, layers)),), (hidden,)),
    )

    def over(by: int) -> tuple[Over, ...]:
        return Over(tp, (0,), (1, 0), by), Over(layers, (1,), (0, 1))

    steps = (
        Step(0, 0, (0,), (0, 0), over(part * hidden), 0, 0, (Loop(part * hidden, 1, 1),), "range"),
        Step(1, 1, (0,), (0, 0), over(part), 0, 0, (Loop(hidden, wide, part), Loop(part, 1, 1)), "rows"),
        Step(2, 2, (0,), (0, 0), over(0), 0, 0, (Loop(hidden, 1, 1),), "range"),
    )
    return Plan("m", side(source), side(target, "pt"), steps, files=(("config.json", "{}"),))


def test_the_source_is_read_once_and_writes_ascend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    plan = llama(hidden=512, wide=1024)
    checkpoint, _ = put(tmp_path / "in", plan, ["uint16"] * 3)
    bound = bind(plan, checkpoint)
    seen: dict[int, int] = {}
    real = os.pwritev

    def pwritev(number: int, parts: Any, at: int) -> int:
        assert seen.get(number, 0) <= at
        seen[number] = at + sum(len(part) for part in parts)
        return real(number, parts, at)

    monkeypatch.setattr(writing.os, "pwritev", pwritev)
    report = engine.run(bound, tmp_path / "out", memory=400_000, workers=2)
    assert report.bytes_read == bound.bytes_read
    assert report.bytes_written == sum(p.stat().st_size for p in (tmp_path / "out").rglob("*") if p.is_file())
    assert (tmp_path / "out/config.json").read_text() == "{}"


def test_no_python_runs_per_contiguous_run(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    plan = llama(layers=2, hidden=4096, wide=64)
    checkpoint, _ = put(tmp_path / "in", plan, ["uint16"] * 3)
    report = engine.run(bind(plan, checkpoint), tmp_path / "out")
    assert report.kernel_calls < 20


def test_emitted_kernels_are_used_where_they_fit(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    plan = llama(layers=2)
    checkpoint, values = put(tmp_path / "in", plan, ["uint16"] * 3)
    bound = bind(plan, checkpoint)
    calls = []

    def kernel(source: Any, target: Any, source_at: int, target_at: int, begin: int, end: int) -> None:
        calls.append((begin, end))
        for i in range(begin, end):
            one, two = source_at + i * 96, target_at + i * 48
            target[two : two + 48] = source[one : one + 48]

    engine.run(bound, tmp_path / "out", memory=20_000, kernels={1: kernel})
    assert calls
    assert written(bound, tmp_path / "out") == execute(plan, values)


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    plan = llama(hidden=512, wide=1024)
    checkpoint, _ = put(tmp_path / "in", plan, ["uint16"] * 3)
    bound = bind(plan, checkpoint)
    calls = 0

    def pwritev(number: int, parts: Any, at: int) -> int:
        nonlocal calls
        calls += 1
        if calls > 5:
            raise OSError(28, "No space left on device")
        return sum(len(part) for part in parts)

    monkeypatch.setattr(writing.os, "pwritev", pwritev)
    with pytest.raises(Fault, match="disk-full"):
        engine.run(bound, tmp_path / "out", memory=400_000, workers=2)
    assert os.listdir(tmp_path) == ["in"]


def test_a_taken_destination_is_kept_unless_overwritten(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    plan = llama()
    checkpoint, _ = put(tmp_path / "in", plan, ["uint16"] * 3)
    bound = bind(plan, checkpoint)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").write_text("kept")
    with pytest.raises(Fault, match="destination-exists"):
        engine.run(bound, tmp_path / "out")
    engine.run(bound, tmp_path / "out", merge=True)
    assert sorted(os.listdir(tmp_path / "out")) == ["config.json", "mine", "tp0.pt", "tp1.pt"]
    engine.run(bound, tmp_path / "out", overwrite=True)
    assert sorted(os.listdir(tmp_path / "out")) == ["config.json", "tp0.pt", "tp1.pt"]
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]
    with pytest.raises(Fault, match="source-in-destination"):
        engine.run(bound, tmp_path / "in", overwrite=True)


def test_memory_that_cannot_do_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    plan = llama()
    checkpoint, _ = put(tmp_path / "in", plan, ["uint16"] * 3)
    with pytest.raises(Fault, match="memory-too-small"):
        engine.run(bind(plan, checkpoint), tmp_path / "out", memory=64)
    assert os.listdir(tmp_path) == ["in"]


def test_a_file_may_be_merged_beside_the_file_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "in.pt").write_bytes(b"read")
    place = str(tmp_path)
    destination.check(place, 0, (str(tmp_path / "in.pt"),), overwrite=False, merge=True, names=("out.pt",))
    for merge, names in ((True, ("in.pt",)), (False, ("out.pt",))):
        with pytest.raises(Fault, match="source-in-destination"):
            destination.check(place, 0, (str(tmp_path / "in.pt"),), overwrite=True, merge=merge, names=names)
