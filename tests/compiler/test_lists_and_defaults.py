"""Indices that a config lists, and defaults of parameters that follow from the model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ckptc.compiler.fit import fit_source
from ckptc.compiler.identify.match import Found
from ckptc.compiler.link.flat import Family
from ckptc.compiler.link.link import link
from ckptc.compiler.settle.resolve import Side, resolve
from ckptc.compiler.settle.sizes import Sizes, bind_sizes
from ckptc.compiler.settle.write_config import config_text
from ckptc.dsl.diagnostic import MappingError
from ckptc.dsl.parsing.parse import parse

TEXT = """
model m {
  axes { layer a }
  settings { some = null  alike = count(some) == 0  listed[layer] = layer in some }
  w [layer, a]
  x [layer, a]  when listed
  y [layer, a]  when not listed
}
layout hf of m {
  config "config.json" { layer = .layers  a = .width  some = .few }
  "{layer}.w" = w [a]
  "{layer}.x" = x [a]
  "{layer}.y" = y [a]
}
layout whole of m (
  form = joined | apart default if alike then joined else apart,
  rows = a + 1,
  more = rows * 2
) {
  "w" = w [layer, pad(a, to rows)]  when form == joined
  "y" = y [layer, pad(a, to more)]  when form == joined
  "{layer}.w" = w [pad(a, to rows)]  when form == apart
  "{layer}.x" = x [a]  when form == apart
  "{layer}.y" = y [pad(a, to more)]  when form == apart
}
"""


def of(few: Any) -> tuple[Family, Sizes]:
    (family,) = link([parse(TEXT)])
    return family, bind_sizes(family, family.layout("hf"), {"layers": 5, "width": 3, "few": few}, {}, lambda _: True)


def names(side: Side) -> set[str]:
    from ckptc.compiler.algebra.lower import lower

    return {x.stored.name for x in lower(side)}


@pytest.mark.parametrize(("few", "listed"), [([1, 3], (1, 3)), ([4, 0, 9], (0, 4)), ([], None), (None, None)], ids=str)
def test_a_tensor_is_where_the_list_has_its_index(few: Any, listed: tuple[int, ...] | None) -> None:
    _, sizes = of(few)
    if listed is None:
        assert "x" in sizes.absent
        assert sizes.tensors["y"].picked == ()
    else:
        assert sizes.tensors["x"].picked == (("layer", listed),)
        assert sizes.tensors["y"].picked == (("layer", tuple(i for i in range(5) if i not in listed)),)


def test_a_list_is_written_back_as_it_was_read() -> None:
    family, sizes = of([1, 3])
    side = resolve(family, "hf", sizes, {})
    block = family.layout("hf").config
    assert block is not None
    assert config_text(block, side, None) == '{\n  "layers": 5,\n  "width": 3,\n  "few": [\n    1,\n    3\n  ]\n}\n'


def test_a_default_follows_from_the_model_and_from_parameters_before() -> None:
    family, sizes = of([])
    side = resolve(family, "whole", sizes, {})
    assert side.params == {"form": "joined", "rows": 4, "more": 8}
    assert side.changed == ()
    assert names(side) == {"w", "y"}
    family, sizes = of([2])
    assert resolve(family, "whole", sizes, {"rows": 7}).params == {"form": "apart", "rows": 7, "more": 14}
    assert resolve(family, "whole", sizes, {"rows": 7}).changed == ("rows",)  # more follows from rows


def test_what_is_given_is_kept_and_must_be_one_of_the_choices() -> None:
    family, sizes = of([])
    side = resolve(family, "whole", sizes, {"form": "apart"})
    assert (names(side), side.changed) == ({"{layer}.w", "{layer}.y"}, ("form",))
    with pytest.raises(MappingError, match="one of joined, apart"):
        resolve(family, "whole", sizes, {"form": "round"})


@pytest.mark.parametrize("form", ["joined", "apart"])
@pytest.mark.parametrize("few", [[], None], ids=str)
def test_each_form_of_a_source_is_found_whichever_is_the_default(few: Any, form: str) -> None:
    family, sizes = of(few)
    joined = [Found("", "w", "f32", (5, 4)), Found("", "y", "f32", (5, 8))]
    apart = [Found("", f"{i}.{name}", "f32", (size,)) for i in range(5) for name, size in (("w", 4), ("y", 8))]
    found = joined if form == "joined" else apart
    assert fit_source(family, family.layout("whole"), sizes, found, {}).params["form"] == form


LISTS = """
model m { axes { layer a }  settings { full = null }  w [layer, a] }
layout hf of m {
  config "config.json" {
    layer = .layers
    a     = .width
    full <- if .kinds == null then every(.every, .every - 1, layer) else places(.kinds, "full")
    .kinds = marked(layer, full, "full", "part")
  }
  "{layer}.w" = w [a]
}
"""


@pytest.mark.parametrize(("keys", "full", "kinds"), [
    ({"every": 2}, [1, 3], ["part", "full", "part", "full", "part"]), ({"every": 6}, [], ["part"] * 5), ({"every": 1}, [0, 1, 2, 3, 4], ["full"] * 5),
    ({"kinds": ["full", "part", "part", "part", "full"]}, [0, 4], ["full", "part", "part", "part", "full"]), ({"kinds": ["part"] * 5}, [], ["part"] * 5),
], ids=str)  # fmt: skip
def test_numbers_become_a_list_of_kinds_and_come_back(keys: dict[str, Any], full: list[int], kinds: list[str]) -> None:
    (family,) = link([parse(LISTS)])
    sizes = bind_sizes(family, family.layout("hf"), {"layers": 5, "width": 3, **keys}, {}, lambda _: True)
    assert sizes.values["full"] == full
    config = family.layout("hf").config
    assert config is not None
    written = json.loads(config_text(config, resolve(family, "hf", sizes, {}), None))
    assert written == {"layers": 5, "width": 3, "kinds": kinds}
    assert bind_sizes(family, family.layout("hf"), written, {}, lambda _: True).values["full"] == full
