"""Tensors that do not lie row by row from the first byte are read, and converted, as torch means them, in every container.

torch.save keeps a view as it lies in memory: its storage, an offset and strides (torch/_utils.py, _rebuild_tensor_v2).
torch.distributed.checkpoint saves each part with it, and copies only those that are smaller than their storage, with their
strides (torch/distributed/checkpoint/filesystem.py). zarr says the order of a whole array (zarr v2 specification).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp

import ckptc
from ckptc.runtime.checkpoint.checkpoint import open_checkpoint

from .nemo_files import pack, saved

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def numbers(*shape: int, dtype: torch.dtype = torch.float32, start: int = 0) -> torch.Tensor:
    count = int(np.prod(shape))
    return torch.arange(start, start + count, dtype=torch.int64).reshape(shape).to(dtype)


def views() -> dict[str, torch.Tensor]:
    """No shape is square; some share one shape and differ in strides alone, some share a storage."""
    shared = numbers(9, 14, start=500)
    return {
        "whole": numbers(5, 7), "transposed": numbers(7, 5, start=100).t(), "cut": numbers(5, 11, start=200)[:, 2:9], "stepped": numbers(10, 7, start=300)[1::2],
        "expanded": numbers(7, start=400).expand(5, 7), "expanded columns": numbers(5, 1, start=450).expand(5, 7),
        "shared": shared[1:6, 3:10], "shared transposed": shared[2:9, 1:6].t(), "shared steps": shared[::3, ::2],
        "permuted": numbers(2, 3, 4, start=700).permute(2, 0, 1), "half": numbers(6, 3, dtype=torch.bfloat16).t(), "bytes": numbers(3, 8, dtype=torch.uint8)[1:, ::3],
        "one": numbers(13)[6], "none": numbers(4, 3)[2:2], "column": numbers(5, 7)[:, 3], "wide": numbers(4, 6, dtype=torch.float64).t()[1:4],
        "parameter": torch.nn.Parameter(numbers(7, 5).t()), "float8": numbers(4, 6).to(torch.float8_e4m3fn).t(),
    }  # fmt: skip


def pt(folder: Path, held: dict[str, torch.Tensor]) -> Path:
    torch.save(held, folder / "x.pt")
    return folder / "x.pt"


def bin_(folder: Path, held: dict[str, torch.Tensor]) -> Path:
    torch.save(held, folder / "pytorch_model.bin")
    return folder


def rank(folder: Path, held: dict[str, torch.Tensor]) -> Path:
    (folder / "mp_rank_00").mkdir()
    torch.save({"model": held, "checkpoint_version": 3.0, "iteration": 1}, folder / "mp_rank_00/model_optim_rng.pt")
    return folder


def nemo(folder: Path, held: dict[str, torch.Tensor]) -> Path:
    return pack(folder / "x.nemo", {"model_config.yaml": b"a: 1\n", "model_weights.ckpt": saved(**held)})


def xser(folder: Path, held: dict[str, torch.Tensor]) -> Path:
    """torch_xla.utils.serialization: a file of references, and a file for each tensor."""
    import sys
    import types

    class TensorReference:
        def __init__(self, tid: int) -> None:
            self.tid = tid

    name = "torch_xla.utils.serialization"
    TensorReference.__module__, TensorReference.__qualname__ = name, "TensorReference"
    modules = {part: types.ModuleType(part) for part in ("torch_xla", "torch_xla.utils", name)}
    modules[name].TensorReference = TensorReference  # type: ignore[attr-defined]
    (folder / "r.pt.tensors").mkdir()
    sys.modules.update(modules)
    try:
        torch.save({each: TensorReference(i) for i, each in enumerate(held)}, folder / "r.pt")
    finally:
        for part in modules:
            sys.modules.pop(part)
    for i, tensor in enumerate(held.values()):
        torch.save(tensor, folder / f"r.pt.tensors/tensor_{i}.pt")
    return folder


def torch_dist(folder: Path, held: dict[str, torch.Tensor]) -> Path:
    dcp.save({name: tensor.detach() for name, tensor in held.items()}, checkpoint_id=folder / "d", no_dist=True)
    return folder / "d"


@pytest.mark.parametrize("make", [pt, bin_, rank, nemo, xser, torch_dist])
def test_views_are_read_as_they_are(make: Callable[[Path, dict[str, torch.Tensor]], Path], tmp_path: Path) -> None:
    held = views()
    opened = open_checkpoint(make(tmp_path, held))
    assert {t.name for t in opened} == held.keys()
    for name, tensor in held.items():
        found = opened[name]
        assert (found.dtype, found.shape) == (str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape))
        read = found.read()
        assert torch.equal(read.view(torch.uint8) if read.dim() else read, tensor.detach().contiguous().view(torch.uint8) if read.dim() else tensor), name


@pytest.mark.parametrize("order", [("t", "c"), ("c", "t"), ("c", "t", "c", "t", "c"), tuple("tttcccttt")])
def test_parts_of_one_size_may_lie_in_several_ways(order: tuple[str, ...], tmp_path: Path) -> None:
    """A part that was read tells how those lie that begin with the same bytes, and no others."""
    held = {f"w{i}": numbers(7, 5, start=100 * i).t() if kind == "t" else numbers(5, 7, start=100 * i) for i, kind in enumerate(order)}
    opened = open_checkpoint(torch_dist(tmp_path, held))
    assert all(torch.equal(opened[name].read(), tensor) for name, tensor in held.items())


def zarr(path: Path, values: np.ndarray, chunks: tuple[int, ...], order: str, separator: str = ".", dtype: str = "") -> None:
    path.mkdir(parents=True)
    said = {"chunks": chunks, "compressor": None, "dtype": dtype or values.dtype.str, "fill_value": None, "filters": None, "order": order, "shape": values.shape, "zarr_format": 2}
    (path / ".zarray").write_text(json.dumps(said | ({"dimension_separator": separator} if separator != "." else {})))
    for index in product(*(range(-(-n // chunk)) for n, chunk in zip(values.shape, chunks, strict=True))):
        block = np.full(chunks, 77, dtype=values.dtype)
        part = values[tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, chunks, strict=True))]
        block[tuple(slice(0, n) for n in part.shape)] = part
        file = path / separator.join(map(str, index))
        file.parent.mkdir(exist_ok=True, parents=True)
        file.write_bytes(block.tobytes(order="F" if order == "F" else "C"))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("chunks", [(5, 7, 3), (2, 7, 3), (5, 4, 2), (3, 2, 1), (1, 1, 1), (8, 9, 10)])
@pytest.mark.parametrize("separator", [".", "/"])
def test_arrays_of_either_order_are_read(order: str, chunks: tuple[int, ...], separator: str, tmp_path: Path) -> None:
    values = np.arange(5 * 7 * 3, dtype=np.int32).reshape(5, 7, 3)
    zarr(tmp_path / "w", values, chunks, order, separator)
    zarr(tmp_path / "b", values[0].astype(np.int16), (4, 2), order, separator, "bfloat16")
    (tmp_path / "metadata.json").write_text('{"sharded_backend": "zarr"}')
    opened = open_checkpoint(tmp_path)
    assert np.array_equal(opened["w"].read().numpy(), values)
    assert np.array_equal(opened["w"].at(3).read().numpy(), values[3])
    assert torch.equal(opened["b"].read().view(torch.int16), torch.from_numpy(values[0].astype(np.int16)))


MAPPING = """
model m {
  axes { layer hidden ffn }
  up   [layer, ffn, hidden]
  down [layer, hidden, ffn]
}
layout stacked of m {
  format torch_dist
  "up[{layer}]"   = up   [ffn, hidden]
  "down[{layer}]" = down [hidden, ffn]
}
layout sharded of m (rank tp = 1) {
  files "rank_{tp}.pt"
  format pt
  "{layer}.up"   = up   [hidden, ffn/tp]
  "{layer}.down" = down [hidden, ffn/tp]
}
"""


def stacks() -> dict[str, torch.Tensor]:
    return {"up": numbers(3, 10, 4), "down": numbers(3, 4, 10, start=1000)}


def dist_of_views(folder: Path) -> Path:
    """Each stack lies with its last axis outermost."""
    return torch_dist(folder, {name: tensor.permute(2, 1, 0).contiguous().permute(2, 1, 0) for name, tensor in stacks().items()})


def zarr_by_columns(folder: Path) -> Path:
    for name, tensor in stacks().items():
        zarr(folder / "z" / name, tensor.numpy(), (2, 3, 3), "F")
    (folder / "z/metadata.json").write_text('{"sharded_backend": "zarr"}')
    return folder / "z"


@pytest.mark.parametrize("make", [dist_of_views, zarr_by_columns])
@pytest.mark.parametrize("tp", [1, 2, 5])
def test_stacks_that_lie_by_columns_are_converted(make: Callable[[Path], Path], tp: int, tmp_path: Path) -> None:
    (tmp_path / "m.ckmap").write_text(MAPPING)
    ckptc.convert(make(tmp_path), tmp_path / "out", to="sharded", mapping=tmp_path / "m.ckmap", tp=tp, settings={"layer": 3, "hidden": 4, "ffn": 10})
    wide = 10 // tp
    held = stacks()
    for r in range(tp):
        got = torch.load(tmp_path / f"out/rank_{r}.pt", weights_only=True)
        part = slice(r * wide, (r + 1) * wide)
        for layer in range(3):
            assert torch.equal(got[f"{layer}.up"], held["up"][layer].t()[:, part])
            assert torch.equal(got[f"{layer}.down"], held["down"][layer][:, part])
