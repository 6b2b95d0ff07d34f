"""What a layout that extends another inherits, and what its own items replace."""

from __future__ import annotations

from ckptc.compiler.link import FlatLayout, link
from ckptc.dsl.parse import parse
from ckptc.dsl.show import show
from ckptc.dsl.tree import Config, Files, Formats, Let, Refine, Stages

MODEL = "model m { axes { layer a }  w [layer, a]  v [layer, a] }\n"
BASE = """
layout base of m (rank tp = 1, rank pp = 1, flat = false) {
  files "a_{tp}.pt" when tp > 1
  files "a.pt"
  format pt | safetensors
  config "config.json" { layer = layers }
  stages layer over pp
  axis a = (hi lo) with hi = 2
  let rows = (hi lo) when flat
  let rows = (lo hi)
  "w" = w [layer, a]  when flat
  "w" = w [layer, rows]  when not flat
  "v" = v [layer, rows]
}
"""


def extended(items: str) -> FlatLayout:
    (family,) = link([parse(MODEL + BASE + "layout own of m extends base {" + items + "}")])
    return family.layout("own")


def rules(layout: FlatLayout) -> list[str]:
    return [show(r.rule) for r in layout.rules]


def test_all_is_inherited() -> None:
    (family,) = link([parse(MODEL + BASE)])
    assert rules(extended("")) == rules(family.layout("base"))
    assert extended("").items == family.layout("base").items
    assert extended("").params == family.layout("base").params


def test_rules_of_one_first_name_replace_all_inherited_ones_where_these_stood() -> None:
    own = '"w" = w [a, layer] when pp > 1  "w" or "x" = w [layer, a] when pp == 1  "u" = w [layer, a]'
    assert rules(extended(own)) == [
        '"w" = w [a, layer] when pp > 1',
        '"w" or "x" = w [layer, a] when pp == 1',
        '"v" = v [layer, rows]',
        '"u" = w [layer, a]',
    ]


def test_an_item_replaces_inherited_ones_of_its_kind_and_name() -> None:
    own = """
    files "b.pt"  format safetensors  config "other.json" { layer = n }
    stages layer over pp remainder last  axis a = (x y) with x = 2  let rows = (y x)
    """
    items = extended(own).items
    for kind, count in ((Files, 1), (Formats, 1), (Config, 1), (Stages, 1), (Refine, 1), (Let, 1)):
        assert len([x for x in items if isinstance(x, kind)]) == count


def test_prefixes_and_guards_are_written_into_rules_that_keep_their_places() -> None:
    text = MODEL + 'layout one of m {\n under "a." when 1 < 2 {\n  under "{layer}." {\n   "w" = w [a] when 2 < 3\n  }\n }\n}'
    (family,) = link([parse(text)])
    (rule,) = family.layout("one").rules
    assert show(rule.rule) == '"a.{layer}.w" = w [a] when 1 < 2 and 2 < 3'
    assert rule.rule.span.line == 5
