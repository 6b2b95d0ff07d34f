"""Tensors of every kind, and files changed on purpose."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

DTYPES = [
    "float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz",
    "float8_e8m0fnu", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool", "complex64",
    "complex128",
]  # fmt: skip


def raw_bytes(tensor: torch.Tensor) -> bytes:
    """The contiguous row-major little-endian bytes."""
    flat = tensor.detach().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


@pytest.fixture(scope="session")
def as_bytes() -> Callable[[torch.Tensor], bytes]:
    return raw_bytes


@pytest.fixture(scope="session")
def digest() -> Callable[[torch.Tensor], str]:
    return lambda tensor: hashlib.sha256(raw_bytes(tensor)).hexdigest()


@pytest.fixture(scope="session")
def every_dtype() -> dict[str, torch.Tensor]:
    """One small tensor per dtype, with bytes that differ (NaN payloads among them)."""
    made = {}
    for number, name in enumerate(DTYPES):
        dtype = getattr(torch, name)
        data = torch.arange(number, number + 6 * dtype.itemsize, dtype=torch.int64).to(torch.uint8)
        made[f"w.{name}"] = (data % 2 if name == "bool" else data).view(dtype).reshape(2, 3)
    return made


@pytest.fixture
def with_pickle(tmp_path: Path) -> Callable[..., Path]:
    """A torch file whose `data.pkl` is the given bytes."""

    def make(pickle: bytes, records: dict[str, bytes] | None = None, name: str = "hostile.pt") -> Path:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("hostile/data.pkl", pickle)
            archive.writestr("hostile/byteorder", "little")
            for record, data in (records or {}).items():
                archive.writestr(f"hostile/{record}", data)
        path = tmp_path / name
        path.write_bytes(buffer.getvalue())
        return path

    return make
