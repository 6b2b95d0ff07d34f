"""Which names lie within a folder, and that nothing is made elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptc.runtime.binding import made_tensors as made
from ckptc.runtime.fault import Fault
from ckptc.runtime.inside import confine, place, why_outside
from ckptc.runtime.plan.plan import FUNCTIONS


@pytest.mark.parametrize("name", ["a", "model/rank_00.pt", "..a/b..", "a b", ".hidden", "x.tensors/tensor_0.pt", "ab:c"])
def test_a_relative_name_lies_within(name: str) -> None:
    assert why_outside(name) == ""
    assert place("/root", name) == f"/root/{name}"
    confine([name])


@pytest.mark.parametrize(
    "name", ["", "/a", "..", "../a", "a/../b", "a/..", "a//b", "a/", "./a", "a/./b", "C:a", "c:/a", "a\\b", "\\\\host\\a", "a\0b"]
)
def test_any_other_name_does_not(name: str) -> None:
    assert why_outside(name)
    for ask in (lambda: place("/root", name), lambda: confine(["good", name])):
        with pytest.raises(Fault) as refused:
            ask()
        assert refused.value.code == "outside-destination"


def test_a_link_in_the_destination_is_followed_only_within_it(tmp_path: Path) -> None:
    inside, outside = tmp_path / "out", tmp_path / "elsewhere"
    (inside / "real").mkdir(parents=True)
    outside.mkdir()
    (inside / "alias").symlink_to("real")
    (inside / "real" / "leak").symlink_to(outside)
    confine(["alias/a", "real/a", "new/a"], str(inside))
    for name in ("real/leak/a", "alias/leak/deeper/a"):
        with pytest.raises(Fault, match="link"):
            confine([name], str(inside))


def test_the_destination_itself_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real" / "model").mkdir(parents=True)
    (tmp_path / "out").symlink_to("real")
    confine(["model/a"], str(tmp_path / "out"))


def test_the_functions_that_mappings_may_name_are_those_that_there_are() -> None:
    assert FUNCTIONS.keys() == made.FUNCTIONS.keys()
