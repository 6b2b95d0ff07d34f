"""Checkpoints that Megatron-core wrote, releases 0.8 to 0.20-dev, are read tensor by tensor, without Megatron-core."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

import ckptc
from ckptc.runtime.distributed import Folder
from ckptc.runtime.run_arguments import arguments_of
from ckptc.runtime.torch_dist import read_common

from .megatron_cases import expected, folders, nemo_folders, seen


@pytest.mark.parametrize("path", [*folders("torch_dist"), *folders("own_writer"), *folders("zarr")])
def test_every_tensor_of_a_distributed_checkpoint_is_read(path: Path) -> None:
    checkpoint = ckptc.open(path)
    assert checkpoint.format == ("zarr" if path.parent.name == "zarr" else "torch_dist")
    wanted = expected(path)
    assert {tensor.name: seen(tensor.read()) for tensor in checkpoint} == {
        name: {key: value[key] for key in ("shape", "dtype", "sha256")} for name, value in wanted.items()
    }


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("path", nemo_folders())
def test_every_tensor_of_a_nemo_checkpoint_is_read(path: Path, packed: bool, tmp_path: Path) -> None:
    """What Megatron-core 0.5 and 0.9 wrote for NeMo 1, in a folder and in an archive."""
    said = json.loads((path / "expected.json").read_text())["tensors"]
    if packed:
        with tarfile.open(tmp_path / "model.nemo", "w") as archive:
            archive.add(path / "model_weights", "./model_weights")
    checkpoint = ckptc.open(tmp_path / "model.nemo" if packed else path)
    assert checkpoint.format in path.name.replace("torchdist", "torch_dist")
    assert {(tensor.file.rstrip("/"), tensor.name): seen(tensor.read()) for tensor in checkpoint} == {
        (each["file"], each["name"]): {key: each[key] for key in ("shape", "dtype", "sha256")} for each in said
    }


@pytest.mark.parametrize("path", folders("torch_dist"))
def test_what_a_run_was_started_with_is_read_without_unpickling(path: Path) -> None:
    common = read_common(Folder(str(path)).place, "")
    assert common["checkpoint_version"] == 3.0
    arguments = arguments_of(common)
    assert arguments is not None
    assert arguments["num_layers"] == 4
    assert arguments["tensor_model_parallel_size"] == json.loads(path.with_name(f"{path.name}.expected.json").read_text())["tp"]
