"""Real files: a folder of safetensors becomes rank files that torch loads, and comes back byte for byte."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from ckptc.runtime.binding.bind import bind
from ckptc.runtime.checkpoint.checkpoint import open_checkpoint
from ckptc.runtime.engine import engine
from ckptc.runtime.plan.plan import Loop, Over, Plan, Step

from .test_engine import llama


def back_of(plan: Plan) -> Plan:
    """The reverse of `llama`."""
    steps = []
    for step in plan.steps:
        over = tuple(
            Over(o.extent, o.target, o.source, 0, o.source_at) for o in step.over if o.source_at or any(o.source)
        )
        loops = tuple(Loop(loop.extent, loop.target, loop.source) for loop in step.loops)
        steps.append(Step(step.target, step.source or 0, (0, 0), (0,), over, 0, 0, loops, step.kernel))
    return Plan("m", plan.target, replace(plan.source, format="safetensors"), tuple(steps))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_rank_files_load_in_torch_and_come_back(tmp_path: Path, dtype: torch.dtype) -> None:
    plan = replace(llama(), files=())
    torch.manual_seed(0)
    shapes = {"up": (96, 64), "down": (64, 96), "norm": (64,)}
    tensors = {f"layers.{i}.{k}": torch.randn(shape).to(dtype) for i in range(4) for k, shape in shapes.items()}
    (tmp_path / "in").mkdir()
    save_file(tensors, tmp_path / "in/model.safetensors")
    bound = bind(plan, open_checkpoint(str(tmp_path / "in")))
    engine.run(bound, tmp_path / "ranks", memory=100_000)
    for tp in range(2):
        loaded = torch.load(tmp_path / f"ranks/tp{tp}.pt", weights_only=True)
        for i in range(4):
            assert torch.equal(loaded[f"l.{i}.up"], tensors[f"layers.{i}.up"][48 * tp :][:48])
            assert torch.equal(loaded[f"l.{i}.down"], tensors[f"layers.{i}.down"][:, 48 * tp :][:, :48])
            assert torch.equal(loaded[f"l.{i}.norm"], tensors[f"layers.{i}.norm"])
    streamed = {name: (dt, shape, data) for name, dt, shape, data in engine.stream(bound, {"tp": 1})}
    for name, (_, shape, data) in streamed.items():
        assert torch.equal(torch.frombuffer(data, dtype=dtype).view(shape), loaded[name])
    again = bind(back_of(plan), open_checkpoint(str(tmp_path / "ranks")), max_shard_bytes=30_000)
    engine.run(again, tmp_path / "back", memory=100_000)
    assert len(list((tmp_path / "back").glob("*.safetensors"))) > 1
    assert (tmp_path / "back/model.safetensors.index.json").exists()
    got = {k: v for path in (tmp_path / "back").glob("*.safetensors") for k, v in load_file(path).items()}
    assert got.keys() == tensors.keys()
    assert all(torch.equal(got[name], tensors[name]) for name in tensors)
    assert bind(back_of(plan), open_checkpoint(str(tmp_path / "ranks"))).files[0].name == "model.safetensors"


