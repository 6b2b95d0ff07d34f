"""zarr checkpoints that are written here, read back by a reader that shares no code with them."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ckptc.runtime.engine import engine
from ckptc.runtime.fault import Fault
from ckptc.runtime.plan.plan_file import dump_plan, parse_plan

from .distributed_plans import OBJECT_KEYS, bound_to, copying, family, model, stacked, with_objects


def read_zarr(folder: Path) -> tuple[str, np.ndarray]:
    """The dtype that `.zarray` names, and the elements as unsigned integers or bytes of its width."""
    about = json.loads((folder / ".zarray").read_text())
    width = 2 if about["dtype"] == "bfloat16" else int(about["dtype"][2:])
    kind, chunk = f"V{width}", tuple(about["chunks"])
    assert (about["zarr_format"], about["order"]) == (2, "C")
    assert about["compressor"] is about["filters"] is about["fill_value"] is None
    whole = np.zeros(about["shape"], kind)
    grid = [range(-(-extent // size)) for extent, size in zip(about["shape"], chunk, strict=True)]
    for index in itertools.product(*grid):
        data = np.fromfile(folder / (".".join(map(str, index)) or "0"), kind).reshape(chunk)
        whole[tuple(slice(i * size, (i + 1) * size) for i, size in zip(index, chunk, strict=True))] = data
    return about["dtype"], whole


@pytest.mark.parametrize(("only", "memory"), [(torch.bfloat16, 240), (None, 8 << 20)])
def test_every_tensor_reads_back(tmp_path: Path, only: torch.dtype | None, memory: int, as_bytes) -> None:
    families, tensors = model(only)
    bound = bound_to(with_objects(copying(families, "zarr")), tensors, tmp_path)
    engine.run(bound, tmp_path / "out", memory=memory, workers=2)
    wanted = stacked(tensors)
    assert {path.parent.name for path in (tmp_path / "out").glob("*/.zarray")} == wanted.keys()
    names = {torch.float32: "<f4", torch.float16: "<f2", torch.bfloat16: "bfloat16"}
    for name, tensor in wanted.items():
        dtype, data = read_zarr(tmp_path / "out" / name)
        assert (dtype, data.shape) == (names[tensor.dtype], tuple(tensor.shape))
        assert data.tobytes() == as_bytes(tensor)
    assert sorted(path.name for path in (tmp_path / "out/layers.fc1.weight").iterdir()) == [
        ".zarray", "0.0.0", "1.0.0", "2.0.0", "3.0.0",
    ]  # fmt: skip
    assert {str(path.relative_to(tmp_path / "out"))[:-3] for path in (tmp_path / "out").glob("*/*.pt")} == set(OBJECT_KEYS)
    for key in OBJECT_KEYS:
        assert torch.load(tmp_path / "out" / f"{key}.pt", weights_only=True) is None
    assert json.loads((tmp_path / "out/metadata.json").read_text())["sharded_backend"] == "zarr"
    assert torch.load(tmp_path / "out/common.pt", weights_only=True)["checkpoint_version"] == 3.0


def test_every_dtype_that_zarr_has_and_a_scalar(tmp_path: Path, every_dtype, as_bytes) -> None:
    tensors = {name: tensor for name, tensor in every_dtype.items() if "float8" not in name}
    tensors["scalar"] = torch.tensor(3.5)
    families = [family(name, tuple(tensor.shape)) for name, tensor in tensors.items()]
    engine.run(bound_to(copying(families, "zarr"), tensors, tmp_path), tmp_path / "out")
    for name, tensor in tensors.items():
        dtype, data = read_zarr(tmp_path / "out" / name)
        assert data.tobytes() == as_bytes(tensor)
        if dtype != "bfloat16":
            assert np.dtype(dtype) == tensor.numpy().dtype
    float8 = next(name for name in every_dtype if "float8" in name)
    with pytest.raises(Fault, match="cannot be stored in zarr"):
        bound_to(copying([family(float8, (2, 3))], "zarr"), {float8: every_dtype[float8]}, tmp_path)


def test_a_description_is_written_as_the_framework_writes_it(tmp_path: Path, oracle: Path) -> None:
    theirs = oracle / "megatron/zarr/v0.15_dense_tp1"
    name = "decoder.layers.self_attention.linear_qkv.weight"
    pattern = name.replace("layers", "layers[{layer}]")
    tensors = {pattern.format(layer=i): torch.zeros(96, 64).bfloat16() for i in range(4)}
    plan = copying([family(pattern, (96, 64), (("layer", 4),))], "zarr")
    engine.run(bound_to(plan, tensors, tmp_path), tmp_path / "out")
    assert (tmp_path / f"out/{name}/.zarray").read_bytes() == (theirs / f"{name}/.zarray").read_bytes()
    assert (tmp_path / "out/metadata.json").read_bytes() == (theirs / "metadata.json").read_bytes()


def test_a_name_that_leads_out_of_the_checkpoint_is_refused(tmp_path: Path) -> None:
    plan = copying([family("../w", (2,))], "zarr")
    with pytest.raises(Fault, match="bad-name"):
        bound_to(parse_plan(dump_plan(plan)), {"../w": torch.zeros(2)}, tmp_path)
    plan = copying([family("w", (2,))], "zarr")
    plan = replace(plan, target=replace(plan.target, objects=(("../w", ()),)))
    with pytest.raises(Fault, match="bad-name"):
        bound_to(parse_plan(dump_plan(plan)), {"w": torch.zeros(2)}, tmp_path)
