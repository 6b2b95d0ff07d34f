"""Checkpoints that Megatron-core wrote, releases 0.8 to 0.20-dev, are read tensor by tensor, without Megatron-core."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ckptc
from ckptc.runtime.formats.distributed.find import Folder
from ckptc.runtime.formats.distributed.torch_dist_read import read_common
from ckptc.runtime.formats.runs.run_arguments import arguments_of

from .megatron_cases import expected, folders, seen


@pytest.mark.parametrize("path", [*folders("torch_dist"), *folders("own_writer"), *folders("zarr")])
def test_every_tensor_of_a_distributed_checkpoint_is_read(path: Path) -> None:
    checkpoint = ckptc.open(path)
    assert checkpoint.format == ("zarr" if path.parent.name == "zarr" else "torch_dist")
    wanted = expected(path)
    assert {tensor.name: seen(tensor.read()) for tensor in checkpoint} == {
        name: {key: value[key] for key in ("shape", "dtype", "sha256")} for name, value in wanted.items()
    }


@pytest.mark.parametrize("path", folders("torch_dist"))
def test_what_a_run_was_started_with_is_read_without_unpickling(path: Path) -> None:
    common = read_common(Folder(str(path)).place, "")
    assert common["checkpoint_version"] == 3.0
    arguments = arguments_of(common)
    assert arguments is not None
    assert arguments["num_layers"] == 4
    assert arguments["tensor_model_parallel_size"] == json.loads(path.with_name(f"{path.name}.expected.json").read_text())["tp"]
