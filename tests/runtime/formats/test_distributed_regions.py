"""A part of a large tensor costs its own bytes, whatever else is in the files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

import ckptc
from ckptc.runtime.fault import Fault
from ckptc.runtime.files.file_layout import FileLayout
from ckptc.runtime.formats.distributed.torch_dist_write import lay_out_torch_dist

LAYERS, ROWS, COLUMNS = 64, 10_007, 8_009


def write_sparse(path: Path, layout: FileLayout, values: dict[int, bytes]) -> None:
    """The file with holes where its tensors are, but for the first bytes of some regions."""
    with path.open("wb") as file:
        for i, region in enumerate(layout.regions):
            file.seek(region.at - len(region.lead))
            file.write(region.lead)
            file.write(values.get(i, b""))
            file.seek(region.at + region.nbytes)
            file.write(layout.trail(i, 0))
        file.truncate(layout.size)


def test_one_layer_of_ten_gigabytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [(f"decoder.layers[{i}].mlp.linear_fc2.weight", "bfloat16", (ROWS, COLUMNS)) for i in range(LAYERS)]
    files, texts = lay_out_torch_dist("", names, (), 3_000_000_000)
    for name, data in texts:
        (tmp_path / name).write_bytes(data)
    first = torch.arange(7, dtype=torch.bfloat16)
    for name, layout, positions in files:
        write_sparse(tmp_path / name, layout, {k: first.view(torch.uint8).numpy().tobytes() for k, i in enumerate(positions) if i == 41})
    read = 0
    real = os.preadv

    def counted(number: int, buffers: Any, at: int, *rest: Any) -> int:
        nonlocal read
        got = real(number, buffers, at, *rest)
        read += got
        return got

    monkeypatch.setattr(os, "preadv", counted)
    tensor = ckptc.open(tmp_path)["decoder.layers.mlp.linear_fc2.weight"]
    assert tensor.shape == (LAYERS, ROWS, COLUMNS)
    assert torch.Size(tensor.shape).numel() * 2 > 10_000_000_000
    assert read < 500_000  # the metadata, and a header for each chunk
    read = 0
    layer = tensor.at(41).read()
    assert layer.shape == (ROWS, COLUMNS)
    assert torch.equal(layer[0, :7], first)
    assert read == ROWS * COLUMNS * 2
    read = 0
    assert tensor.at(41, 0).read().shape == (COLUMNS,)
    assert read == COLUMNS * 2


def test_an_index_that_is_not_there_is_refused(tmp_path: Path) -> None:
    files, texts = lay_out_torch_dist("", [("w[0]", "float32", (3,)), ("w[1]", "float32", (3,))], (), 1 << 20)
    for name, data in texts:
        (tmp_path / name).write_bytes(data)
    for name, layout, _ in files:
        write_sparse(tmp_path / name, layout, {})
    tensor = ckptc.open(tmp_path)["w"]
    for index in ((2,), (-1,), (0, 3), (0, 0, 0)):
        with pytest.raises(Fault, match="no-such-index"):
            tensor.at(*index)
