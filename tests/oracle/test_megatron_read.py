"""Checkpoints that Megatron-core wrote, releases 0.8 to 0.20-dev, are read tensor by tensor, without Megatron-core."""

from __future__ import annotations

from pathlib import Path

import pytest

import ckptc

from .megatron_cases import expected, folders, seen


@pytest.mark.parametrize("path", [*folders("torch_dist"), *folders("own_writer"), *folders("zarr")])
def test_every_tensor_of_a_distributed_checkpoint_is_read(path: Path) -> None:
    checkpoint = ckptc.open(path)
    assert checkpoint.format == ("zarr" if path.parent.name == "zarr" else "torch_dist")
    wanted = expected(path)
    assert {tensor.name: seen(tensor.read()) for tensor in checkpoint} == {
        name: {key: value[key] for key in ("shape", "dtype", "sha256")} for name, value in wanted.items()
    }
