"""Parts of stacked tensors, by names with indices, against numpy's own indexing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ckptc.runtime.files.indexed import by_index, has_indices, stacked_name
from ckptc.runtime.files.read_window import read_window
from ckptc.runtime.files.window import Entry, Window, row_major

EXPERTS = "decoder.layers[{layer}].mlp.experts[{expert}].w"


def entry(path: Path, name: str, shape: tuple[int, ...]) -> tuple[Entry, np.ndarray]:
    values = np.arange(np.prod(shape), dtype=np.int32).reshape(shape)
    path.write_bytes(b"\0" * 12 + values.tobytes())
    return Entry(name, "", Window(str(path), 12, shape, row_major(shape), "int32")), values


def test_each_index_is_a_tensor_of_its_own(tmp_path: Path) -> None:
    stacked, values = entry(tmp_path / "a", "decoder.layers.mlp.experts.w", (3, 2, 5, 7))
    parts = by_index([stacked], [EXPERTS])
    assert [p.name for p in parts] == [f"decoder.layers[{i}].mlp.experts[{j}].w" for i in range(3) for j in range(2)]
    for part in parts:
        name, (i, j) = stacked_name(part.name)
        assert name == stacked.name
        assert np.array_equal(read_window(part.window).numpy(), values[i, j])


def test_numbers_that_a_name_spells_are_kept(tmp_path: Path) -> None:
    stacked, values = entry(tmp_path / "a", "layers.11.experts.w", (3, 5))
    parts = by_index([stacked], ["layers.{layer}.experts[{expert}].w"])
    assert [p.name for p in parts] == [f"layers.11.experts[{i}].w" for i in range(3)]
    assert np.array_equal(read_window(parts[2].window).numpy(), values[2])


@pytest.mark.parametrize(("name", "shape"), [("decoder.layers.mlp.experts.v", (3, 2, 5)), ("decoder.layers.mlp.experts.w", (3,))])
def test_other_tensors_stay_as_they_are(tmp_path: Path, name: str, shape: tuple[int, ...]) -> None:
    plain, _ = entry(tmp_path / "a", name, shape)
    assert by_index([plain], [EXPERTS, "decoder.{layer}"]) == (plain,)


def test_brackets_with_holes_are_indices() -> None:
    assert has_indices(EXPERTS)
    assert not has_indices("decoder.layers.{layer}.w[0]")
    assert stacked_name("norm") == ("norm", ())
