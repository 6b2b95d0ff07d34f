"""What checkpoints and folders hold, and whether two hold the same: for tests of any room."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

import ckptc


def read(path: Path | str) -> dict[str, torch.Tensor]:
    """A checkpoint's tensors by name, read by ckptc. No two may have one name, as they have in files of ranks."""
    opened = list(ckptc.open(path))
    held = {tensor.name: tensor.read() for tensor in opened}
    assert len(held) == len(opened), "several files have a tensor of one name"
    return held


def read_files(path: Path | str) -> dict[str, torch.Tensor]:
    """The same by `file: name`, for files of ranks."""
    return {f"{tensor.file}: {tensor.name}": tensor.read() for tensor in ckptc.open(path)}


def same(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> bool:
    """Equal names, dtypes, shapes and bits. Raises `AssertionError` with the names of those that differ."""
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if not same_tensor(found[name], wanted[name])] == []
    return True


def same_tensor(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Equal dtype, shape and bits: a NaN is like itself, and 0 is not like -0."""
    return one.dtype == other.dtype and one.shape == other.shape and torch.equal(_bits(one), _bits(other))


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)


def counted(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Tensors whose elements count up from one to the next: each can be told from every other."""
    at, out = 0, {}
    for name, shape in shapes.items():
        count = torch.Size(shape).numel()
        out[name] = torch.arange(at, at + count, dtype=torch.float32).reshape(shape)
        at += count
    return out


def files_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by relative name; nothing where there is none."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
