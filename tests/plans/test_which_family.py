"""Files that several families fit: the config decides, `--family` decides, or it is asked; never guessed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import ckptc
from ckptc.runtime.fault import Fault

MAPPING = """
model one {
  axes { a b }
  settings { kind = "one" }
  w [a, b]
}
model two {
  axes { a b }
  settings { kind = "two" }
  w [a, b]
}
layout here of one {
  files "here.pt"
  format pt
  "w" = w [a, b]
}
layout here of two {
  files "here.pt"
  format pt
  "w" = w [a, b]
}
layout there of one {
  files "there.pt"
  format pt
  config "config.json" { a = .rows  b = .columns  kind = .kind ?? "one" }
  "w1" = w [a, b]
}
layout there of two {
  files "there.pt"
  format pt
  config "config.json" { a = .rows  b = .columns  kind = .kind ?? "two" }
  "w2" = w [b, a]
}
"""
W = torch.arange(15.0).reshape(5, 3)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "m.ckmap").write_text(MAPPING)
    (tmp_path / "source").mkdir()
    torch.save({"w": W}, tmp_path / "source/here.pt")
    return tmp_path / "source"


def plan(source: Path, config: dict[str, object], family: str | None = None) -> ckptc.Plan:
    (source.parent / "config.json").write_text(json.dumps(config))
    return ckptc.plan(source, to="there", mapping=source.parent / "m.ckmap", config=source.parent / "config.json", family=family)


@pytest.mark.parametrize(("kind", "name"), [("one", "w1"), ("two", "w2")])
def test_the_config_decides(kind: str, name: str, source: Path) -> None:
    plan(source, {"rows": 5, "columns": 3, "kind": kind}).run(source.parent / "out")
    [(found, tensor)] = torch.load(source.parent / "out/there.pt", weights_only=True).items()
    assert (found, tuple(tensor.shape)) == (name, (5, 3) if name == "w1" else (3, 5))


def test_where_nothing_decides_it_is_asked(source: Path) -> None:
    with pytest.raises(Fault) as fault:
        plan(source, {"rows": 5, "columns": 3})
    assert fault.value.code == "several-families"
    assert fault.value.title == "the checkpoint may be of several families: one, two"
    assert str(fault.value.help).startswith("name it: --family ")


def test_the_named_family_is_taken(source: Path) -> None:
    assert plan(source, {"rows": 5, "columns": 3}, "two").data.mapping == "two"
