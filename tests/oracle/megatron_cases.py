"""The oracle's Megatron checkpoints: where they are, and the hash of every global tensor."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

MEGATRON = Path(__file__).parents[3] / "shared" / "oracle" / "megatron"
NEMO = MEGATRON.parent / "nemo"


def folders(kind: str) -> list[Any]:
    """The checkpoints of one kind, `torch_dist`, `zarr`, `own_writer` or `legacy`, as test parameters."""
    there = sorted(path for path in (MEGATRON / kind).glob("*") if path.is_dir()) if MEGATRON.is_dir() else []
    absent = pytest.mark.skip(reason=f"no oracle data: {MEGATRON} is absent")
    return [pytest.param(path, id=path.name) for path in there] or [pytest.param(MEGATRON, marks=absent, id=kind)]


def nemo_folders() -> list[Any]:
    """The distributed checkpoints of NeMo 1, unpacked, as test parameters."""
    there = sorted(NEMO.glob("distckpt_*")) if NEMO.is_dir() else []
    absent = pytest.mark.skip(reason=f"no oracle data: {NEMO} is absent")
    return [pytest.param(path, id=path.name) for path in there] or [pytest.param(NEMO, marks=absent, id="distckpt")]


def expected(path: Path) -> dict[str, dict[str, Any]]:
    """Name to shape, dtype and sha256 of each tensor of the checkpoint at `path`."""
    found = json.loads(path.with_name(f"{path.name}.expected.json").read_text())["tensors"]
    assert isinstance(found, dict)
    return found


def seen(tensor: Any) -> dict[str, Any]:
    """The same of a torch tensor."""
    import torch

    data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() if tensor.numel() else b""
    return {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch."), "sha256": hashlib.sha256(data).hexdigest()}
