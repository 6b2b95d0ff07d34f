"""Sizes that a config leaves open, from shapes and names."""

from __future__ import annotations

import pytest

from ckptc.compiler.identify.infer import infer_from
from ckptc.compiler.identify.match import Found
from ckptc.compiler.link.link import link
from ckptc.dsl.parsing.parse import parse

TEXT = """
model m { axes { vocab layer hidden ffn group dim }  e [vocab, hidden]  k [layer, group, dim]  g [layer, ffn, hidden]  u [layer, ffn, hidden] }
layout one of m (rank tp = 1, pad_to = 0) {
  files "r{tp}.pt"
  let rows = pad(vocab, pad_to) when pad_to > 0, vocab
  let part = (group dim)/tp
  "e"           = e [rows/tp, hidden]
  "l.{layer}.k" = k [part]
  "l.{layer}.g" = [(g: ffn/tp + u: ffn/tp), hidden]
}
"""
FOUND = [
    Found(f"r{tp}.pt", name, "float32", shape)
    for tp in range(2)
    for name, shape in (("e", (7, 5)), ("l.0.k", (12,)), ("l.0.g", (22, 5)), ("l.2.k", (12,)), ("l.2.g", (22, 5)))
]
(FAMILY,) = link([parse(TEXT)])


@pytest.mark.parametrize(
    ("axis", "known", "told"),
    [
        ("vocab", {}, (14, "the shape of `e`")),
        ("hidden", {}, (5, "the shape of `e`")),
        ("ffn", {}, (22, "the shape of `l.0.g`")),
        ("layer", {}, (3, "the names of tensors such as `l.2.k`")),
        ("dim", {"group": 4}, (6, "the shape of `l.0.k`")),
        ("dim", {}, None),  # two axes in one dimension
        ("dim", {"group": 7}, None),  # 24 is no multiple of 7
    ],
)
def test_a_size_is_what_the_checkpoint_makes_it(axis: str, known: dict[str, int], told: object) -> None:
    assert infer_from(FAMILY.layout("one"), FOUND, {"tp": 2})(axis, known) == told


def test_without_degrees_a_part_tells_nothing() -> None:
    assert infer_from(FAMILY.layout("one"), FOUND, {})("vocab", {}) is None


def test_what_is_not_there_tells_nothing() -> None:
    assert infer_from(FAMILY.layout("one"), [], {"tp": 2})("vocab", {}) is None


def test_the_numbers_of_all_names_count() -> None:
    """Also where a tensor is in some layers alone, and stands first."""
    (family,) = link([parse("""
model m { axes { layer a }  settings { early[layer] = layer < 2 }  first [layer, a] when early  all [layer, a] }
layout one of m { "first.{layer}" = first [a]  "all.{layer}" = all [a] }
""")])  # fmt: skip
    found = [Found("f", name, "float32", (3,)) for name in ("first.0", "first.1", "all.0", "all.1", "all.2", "all.3")]
    assert infer_from(family.layout("one"), found, {})("layer", {}) == (4, "the names of tensors such as `all.3`")
