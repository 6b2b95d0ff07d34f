"""Rules marked `optional`: a tensor that all of them may leave out is absent where no name of it is found."""

from __future__ import annotations

import pytest

from ckptc.compiler.identify.match import Found, may_be_absent, stored_tensors
from ckptc.compiler.link.flat import Family
from ckptc.compiler.link.link import link
from ckptc.compiler.pipeline import Compiled, compile_sides
from ckptc.compiler.settle.resolve import resolve
from ckptc.compiler.settle.sizes import bind_sizes
from ckptc.dsl.diagnostic import MappingError
from ckptc.dsl.parsing.parse import parse

TEXT = """
model m {
  axes { layer a b }
  w    [layer, a]
  bias [layer, a]
  freq [b]
  rare [b]  optional
}
layout old of m (scaled = false) {
  "{layer}.w"    = w    [a]
  "{layer}.bias" or "{layer}.b" = bias [a]  optional when not scaled
  "{layer}.beta" = bias [a]  optional when scaled
  "freq" = freq [b]  optional
  "rare" = rare [b]
}
layout new of m {
  "w"    = w    [layer, a]
  "bias" = bias [layer, a]
  "freq" = freq [b]
  "rare" = rare [b]
}
layout fused of m {
  "wb"   = [layer, (w: a + bias: a)]
  "freq" = freq [b]  optional
  copy "freq.again" = freq [b]
  "rare" = rare [b]
}
"""


def family() -> Family:
    (family,) = link([parse(TEXT)])
    return family


def convert(names: list[str], source: str = "old", target: str = "new") -> Compiled:
    made = family()
    layout = made.layout(source)
    found = [Found("", name, "f32", ()) for name in names]
    stored = stored_tensors(layout, found)
    sizes = bind_sizes(made, None, None, {"layer": 2, "a": 3, "b": 5}, stored.__contains__, "", may_be_absent(layout))
    return compile_sides(resolve(made, source, sizes, {}), resolve(made, target, sizes, {}))


def written(compiled: Compiled) -> set[str]:
    return {s.name for s in compiled.plan.target.stored}


def test_a_tensor_may_be_absent_if_each_of_its_rules_is_optional() -> None:
    made = family()
    assert may_be_absent(made.layout("old")) == {"bias", "freq"}
    assert may_be_absent(made.layout("new")) == set()
    assert may_be_absent(made.layout("fused")) == {"freq"}  # a further copy needs the tensor, it does not make it


def test_what_is_not_found_is_absent_on_both_sides() -> None:
    assert written(convert(["0.w", "1.w"])) == {"w"}
    assert written(convert(["0.w", "1.w", "freq"])) == {"w", "freq"}
    assert written(convert(["0.w", "1.w", "0.b", "1.b"])) == {"w", "bias"}
    assert written(convert(["0.w", "1.w", "0.bias", "1.bias", "freq", "rare"])) == {"w", "bias", "freq", "rare"}


def test_what_a_rule_needs_is_there_even_if_it_is_not_found() -> None:
    assert written(convert([], "new")) == {"w", "bias", "freq"}


def test_half_of_a_target_that_is_absent_is_a_fault() -> None:
    with pytest.raises(MappingError, match="partly-absent"):
        convert(["0.w", "1.w"], target="fused")
