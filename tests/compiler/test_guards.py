"""Conditions on indices: `check` refuses what compiling refuses, by the same code, and accepts what it accepts."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from ckptc.compiler.check.check import check
from ckptc.compiler.link.link import link
from ckptc.compiler.settle.resolve import resolve
from ckptc.compiler.settle.sizes import bind_sizes
from ckptc.dsl.diagnostic import Diagnostic, MappingError
from ckptc.dsl.parsing.parse import parse

TEXT = """
model m {{
  axes {{ layer expert a }}
  settings {{
    moe = true  n = 2
    low[layer] = layer < n
    some[expert] = expert < 2
    {setting}
  }}
  axis a = (half pair) with pair = 2
  w [layer, a]  {tensor}
  v [a]
}}
layout one of m (rank tp = 1, flat = false, form = x | y) {{
  "{{layer}}.w" = w [a]  {rule}
  "v" = v [a]
  {item}
}}
"""
PLACES = {"tensor": "when {}", "rule": "when {}", "object": 'object "{{layer}}.x" when {}', "ignore": 'ignore "{{layer}}.x" when {}'}
GUARDS = [
    # the setting `odd` of each layer, then the guard
    ("", "low"), ("", "not low"), ("", "low or moe"), ("", "some"), ("", "low or some"), ("", "low and some"), ("", "low == some"),
    ("", "low or a > 2"), ("", "low or expert > 2"), ("", "low or layer > 2"), ("", "if low then layer == 2 else true"),
    ("", "low or stored(v)"), ("", "low or lacks(v)"), ("", "low or n > half"), ("", "low or flat"), ("", "low or form == x"), ("", "low or form == z"),
    ("", "low or tp > 1"), ("", "low or has(.x)"), ("", "low or .key"), ("", "low or gcd(n, 2) == 2"), ("", "low or gcdd(n, 2) == 2"),
    ("", "low or nothing"), ("", "low or written"),
    ("odd[layer] = low and layer > 0", "odd"), ("odd[layer] = layer < a", "odd"), ("odd[layer] = layer < expert", "odd"),
    ("odd[layer] = layer < 2 or some", "odd"), ("odd[layer] = stored(v) or layer > 1", "odd"),
    ("odd[layer] = layer < .n", "odd"), ("odd[layer] = layer < nothing", "odd"),
]  # fmt: skip


def of_compiling(text: str) -> Iterable[Diagnostic]:
    (family,) = link([parse(text)])
    sizes = bind_sizes(family, None, {}, {"layer": 4, "expert": 4, "a": 4}, lambda name: True)
    resolve(family, "one", sizes, {})
    return ()


def codes(found: Iterable[Diagnostic]) -> set[str]:
    return {each.code for each in found if each.severity == "error"}


@pytest.mark.parametrize(("setting", "guard"), GUARDS)
@pytest.mark.parametrize("place", PLACES)
def test_checking_refuses_what_compiling_refuses(place: str, setting: str, guard: str) -> None:
    checked, compiled = both(place, setting, guard)
    assert bool(checked) == bool(compiled)
    assert compiled <= checked


@pytest.mark.parametrize("named", ["half", "tp", "flat"])
def test_a_setting_of_each_index_reads_neither_parts_of_axes_nor_parameters(named: str) -> None:
    assert both("tensor", f"odd[layer] = layer < {named}", "odd") == ({"unknown-name"}, {"unknown-name"})


def test_a_tensor_exists_at_indices_of_an_axis_that_it_has() -> None:
    assert both("tensor", "", "some") == ({"foreign-index"}, {"foreign-index"})


def both(place: str, setting: str, guard: str) -> tuple[set[str], set[str]]:
    """The codes of the faults that checking finds, and compiling."""
    said = PLACES[place].format(guard)
    text = TEXT.format(setting=setting, tensor=said if place == "tensor" else "", rule=said if place == "rule" else "", item=said if place in ("object", "ignore") else "")
    try:
        compiled = codes(of_compiling(text))
    except MappingError as error:
        compiled = codes(error.diagnostics)
    return codes(check(link([parse(text)]))), compiled
