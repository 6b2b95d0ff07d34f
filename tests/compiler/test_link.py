"""What a layout that extends another inherits, and what its own items replace."""

from __future__ import annotations

import pytest

from ckptc.compiler.link.link import FlatLayout, link
from ckptc.dsl.diagnostic import MappingError
from ckptc.dsl.formatting.show import show
from ckptc.dsl.parsing.parse import parse
from ckptc.dsl.tree import Config, Files, Formats, Let, Refine, Stages

MODEL = "model m { axes { layer a }  w [layer, a]  v [layer, a] }\n"
BASE = """
layout base of m (rank tp = 1, rank pp = 1, flat = false) {
  files "a_{tp}.pt" when tp > 1
  files "a.pt"
  format pt | safetensors
  config "config.json" { layer = .layers }
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
    files "b.pt"  format safetensors  config "other.json" { layer = .n }
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


# --- prefixes -------------------------------------------------------------------------------------


def test_of_several_prefixes_the_first_whose_guard_holds_is_taken() -> None:
    text = """layout l of m (old = false, flat = false) {
      under "a." when old, "b.{layer}." when flat, "c." { "w" = w [layer, a]  under "x." when flat { ignore "y" } }
    }"""
    (family,) = link([parse(MODEL + text)])
    layout = family.layout("l")
    assert rules(layout) == [
        '"a.w" = w [layer, a] when old',
        '"b.{layer}.w" = w [layer, a] when not old and flat',
        '"c.w" = w [layer, a] when not old and not flat',
    ]
    assert [show(i) for i in layout.ignores] == [
        'ignore "a.x.y" when old and flat',
        'ignore "b.{layer}.x.y" when not old and flat and flat',
        'ignore "c.x.y" when not old and not flat and flat',
    ]
    assert len({r.block for r in layout.rules}) == 1


# --- families -------------------------------------------------------------------------------------

CHILD = "model child extends m {}\n"


def test_a_familys_own_layout_stands_in_the_place_of_an_inherited_one() -> None:
    own = 'layout base of child (rank tp = 1) { "mine" = w [layer, a]  "v" = v [layer, a] }'
    families = {f.name: f for f in link([parse(MODEL + CHILD + BASE + own)])}
    assert rules(families["child"].layout("base"))[0] == '"mine" = w [layer, a]'
    assert rules(families["m"].layout("base"))[-1] == '"v" = v [layer, rows]'
    assert families["child"].own == {"base"}


def test_a_layout_without_rules_is_only_there_to_be_extended() -> None:
    ranks = 'layout ranks of m (rank tp = 1) { files "r{tp}.pt" }\nlayout full of m extends ranks { "w" = w [layer, a]  "v" = v [layer, a] }'
    (family,) = link([parse(MODEL + ranks)])
    assert [x.name for x in family.layouts] == ["full"]
    (alone,) = link([parse(MODEL + 'layout ranks of m (rank tp = 1) { files "r{tp}.pt" }')])
    assert [x.name for x in alone.layouts] == ["ranks"]  # not a base: it is told that it has no rules


DERIVED = MODEL + BASE + "model n extends m {}\n"


def test_several_bases_each_under_its_prefix() -> None:
    text = MODEL + """
    base layout modules of m { "w" = w [layer, a]  under "in." { "v" = v [layer, a] }  ignore "old"  let rows = a }
    base layout files of m { files "x.pt"  format pt  let rows = (a 1) }
    layout full of m extends modules under "model.", files { "model.w" = w [a, layer] }
    layout bare of m extends modules {}
    """
    (family,) = link([parse(text)])
    full, bare = family.layouts  # what is only there to be extended is none
    assert (full.name, bare.name) == ("full", "bare")
    assert [show(flat.rule) for flat in full.rules] == ['"model.w" = w [a, layer]', '"model.in.v" = v [layer, a]']
    assert [show(flat.rule) for flat in bare.rules] == ['"w" = w [layer, a]', '"in.v" = v [layer, a]']
    assert [show(x) for x in full.ignores] == ['ignore "model.old"']
    assert [show(x) for x in full.items] == ['files "x.pt"', "format pt", "let rows = (a 1)"]


def test_what_two_bases_share_is_there_once() -> None:
    text = MODEL + """
    base layout top of m { carry "x" }
    base layout one of m extends top { "w" = w [layer, a] }
    base layout two of m extends top { "v" = v [layer, a] }
    layout full of m extends one, two {}
    """
    (family,) = link([parse(text)])
    assert [show(x) for x in family.layout("full").items] == ['carry "x"']
    assert len(family.layout("full").rules) == 2


def test_a_parameter_that_is_fixed_leaves_its_other_words_known() -> None:
    text = MODEL + """
    base layout one of m (form = ranks | whole) { "w" = w [layer, a] when form != whole  "v" = v [layer, a] }
    layout two of m extends one (form = ranks) { format pt }
    """
    (family,) = link([parse(text)])
    (form,) = family.layout("two").params
    assert form.choices == ()
    assert family.layout("two").words == {"ranks", "whole"}


def test_a_layout_that_extends_its_own_name_extends_the_one_it_replaces() -> None:
    base, own = link([parse(DERIVED + 'layout base of n extends base { "w" = w [a, layer] }')])
    assert rules(own.layout("base")) == ['"w" = w [a, layer]', '"v" = v [layer, rows]']
    assert rules(base.layout("base"))[0] == '"w" = w [layer, a] when flat'
    assert [p.name for p in own.layout("base").params] == ["tp", "pp", "flat"]


def test_a_layout_with_nothing_in_it_takes_the_inherited_one_away() -> None:
    base, own = link([parse(DERIVED + "layout base of n {}")])
    assert [x.name for x in base.layouts] == ["base"]
    assert own.layouts == ()


def test_extending_its_own_name_needs_one_to_inherit() -> None:
    with pytest.raises(MappingError, match="circular-extends"):
        link([parse(MODEL + BASE + "layout own of m extends own {}")])
