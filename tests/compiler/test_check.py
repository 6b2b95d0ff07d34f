"""The check without sizes, on what ships and on what it must leave alone. Its faults are in `negative`."""

from __future__ import annotations

from ckptc.compiler.check.check import check
from ckptc.compiler.link.link import link
from ckptc.dsl.parsing.parse import parse
from ckptc.library import mapping_files as library


def codes(text: str) -> list[tuple[str, str]]:
    return [(d.severity, d.code) for d in check(link([parse(text)]))]


def test_all_mappings_that_ship_are_clean() -> None:
    assert [d for d in check(library.load(library.shipped_names())) if d.severity == "error" or d.code == "unused-let"] == []


def test_names_of_every_kind_are_known_where_they_stand() -> None:
    text = """
    model m {
      axes { layer head dim }
      settings { big = stored(y)  n = if big then 2 else 1 }
      axis head = (outer inner) with inner = n
      x [layer, head, dim]
      y [layer, head]  when big
    }
    layout one of m (rank tp = 1, rank pp = tp, kind = plain | fancy, other = fancy) {
      config "c.json" { layer = .some.key ?? ."odd key"  head = .heads * layer  big = stored(x) }
      stages layer over pp
      axis dim = (half rest) with half = min(2, n)
      require kind == plain or head % inner == 0 else "no"
      require .type == "m" else "no"
      let rows = (outer inner)/tp
      "x.{layer/pp}.{half + 1}" = x [(rows copies(n)), pad(rest, n)]  * big when kind == fancy
      "y.{layer}.{tp}" = y [rows]
    }
    """
    assert codes(text) == []


def test_a_let_that_only_an_extending_layout_uses_is_used() -> None:
    text = """
    model m { axes { a }  x [a] }
    layout one of m { let rows = (a 1)  "x" = x [a] }
    layout two of m extends one { "x" = x [rows] }
    """
    assert codes(text) == []


def test_one_fault_of_an_inherited_layout_is_told_once() -> None:
    text = """
    model m { axes { a }  x [a] }
    model n extends m { axes { b } }
    layout one of m { "x" = x [aa] }
    layout two of m extends one {}
    """
    assert codes(text) == [("error", "unknown-axis"), ("error", "axis-not-stored"), ("error", "axis-not-stored")]


def test_a_tensor_that_need_not_exist_is_only_a_warning() -> None:
    text = """
    model m { axes { a }  settings { s = true }
      x [a]  y [a] when s  z [a] optional  h [a] tied to x when s  w [a] }
    layout one of m { "x" = x [a] }
    """
    assert codes(text) == [("warning", "no-rule")] * 2 + [("error", "no-rule")]
