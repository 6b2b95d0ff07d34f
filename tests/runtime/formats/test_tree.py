"""Trees of plain values: what torch saved is read as one, and written back as torch reads it."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptc.runtime.fault import Fault
from ckptc.runtime.formats.ranks.read_tree import read_tree
from ckptc.runtime.formats.torch.pickle_names import Size
from ckptc.runtime.formats.torch.pickle_write import Slot
from ckptc.runtime.formats.torch.tensor_tree import Leaf, fill, first_difference, leaves
from ckptc.runtime.formats.torch.zip_write import lay_out as lay_out_torch_zip

VALUE = {
    "a": {0: {"x": torch.ones(2, 3)}, 1: (4, [torch.zeros(()), None])}, "shape": torch.Size([5, 6]), "pair": (5, 6), "dtype": torch.bfloat16,
    "n": -(2**70), "f": 0.25, "yes": True, "text": "ä", "empty": [{}, (), []],
}  # fmt: skip


def test_a_tree_goes_there_and_back(tmp_path: Path) -> None:
    torch.save(VALUE, tmp_path / "v.pt")
    tree, entries, apart = read_tree(str(tmp_path / "v.pt"), "v.pt", "p:")
    assert [(e.name, e.shape) for e in entries] == [("p:a.0.x", (2, 3)), ("p:a.1.1.0", ())]
    assert [(path, leaf.name) for path, leaf in leaves(tree)] == [(("a", 0, "x"), "p:a.0.x"), (("a", 1, 1, 0), "p:a.1.1.0")]
    assert type(tree["shape"]) is Size
    assert not apart
    tensors = [(e.name, e.dtype, e.shape) for e in entries]
    slots = {name: Slot(str(i), dtype, shape) for i, (name, dtype, shape) in enumerate(tensors)}
    layout = lay_out_torch_zip(tensors, "v", fill(tree, slots))
    out = b""
    data = [torch.ones(2, 3).numpy().tobytes(), torch.zeros(1).numpy().tobytes()]
    for i, region in enumerate(layout.regions):
        out += region.lead + data[i] + layout.trail(i, zlib.crc32(data[i]))
    (tmp_path / "w.pt").write_bytes(out + layout.tail([zlib.crc32(each) for each in data]))
    again = torch.load(tmp_path / "w.pt", weights_only=False)
    assert repr(again) == repr(VALUE)
    assert type(again["shape"]) is torch.Size
    assert type(again["pair"]) is tuple


@pytest.mark.parametrize(
    ("one", "other", "at"),
    [
        ({"a": [1, 2]}, {"a": [1, 2]}, None),
        ({"a": [1, 2]}, {"a": [1, 3]}, ("a", 1)),
        ({"a": 1}, {"a": 1, "b": 2}, ("b",)),
        ([1], [1, 2], ()),
        ({"a": Leaf("x")}, {"a": Leaf("y")}, ("a",)),
    ],
)
def test_the_first_difference_is_named(one: Any, other: Any, at: Any) -> None:
    assert first_difference(one, other) == at


@pytest.mark.parametrize("odd", [{1, 2}, b"bytes", {(1, 2): 3}, {"d": torch.device("cpu")}])
def test_what_would_be_lost_is_refused(odd: Any, tmp_path: Path) -> None:
    torch.save({"odd": odd}, tmp_path / "v.pt")
    with pytest.raises(Fault) as caught:
        read_tree(str(tmp_path / "v.pt"), "v.pt")
    assert caught.value.code in ("odd-value", "bad-pickle")


def test_a_list_in_itself_is_refused(tmp_path: Path) -> None:
    ring: list[Any] = []
    ring.append(ring)
    torch.save({"ring": ring}, tmp_path / "v.pt")
    with pytest.raises(Fault) as caught:
        read_tree(str(tmp_path / "v.pt"), "v.pt")
    assert caught.value.code == "bad-pickle"
