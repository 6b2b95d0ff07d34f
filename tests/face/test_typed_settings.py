"""`--set` and `settings=`: each value is read as its parameter, or its setting, is declared, and refused where it cannot be that."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import ckptc as face

MAPPING = """
model mlp {
  axes { layer hidden ffn }
  settings { kind = "plain"  scale = 1.0  twice = false  top = 2  both = twice and top > 1  least = null }
  up [layer, ffn, hidden]
}
layout plain of mlp (width = 2) {
  "layers.{layer}.up" = up [ffn, hidden]
}
layout other of mlp (
    rank dp = 1, format = blocks | nan, to = "x", config = 1, stages = 0.5, optimizer = dp, mapping = config * 2, family = blocks, dtype = false
) {
  files "rank_{dp}.pt"
  format pt
  "up.{layer}" = up [ffn/dp, hidden]
}
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    save_file({f"layers.{i}.up": torch.randn(6, 4) for i in range(3)}, "model.safetensors")
    Path("m.ckmap").write_text(MAPPING)
    return "model.safetensors"


@pytest.mark.parametrize(
    ("pair", "is_", "help"),
    [
        ("format=blcks", "`format` of layout `other` is one of blocks, nan, not `blcks`", "did you mean `blocks`?"),
        ("format=seven", "`format` of layout `other` is one of blocks, nan, not `seven`", "use --set format=blocks"),
        ("family=nan", "`family` of layout `other` is always blocks, not `nan`", "use --set family=blocks"),
        ("config=4.0", "`config` of layout `other` is a whole number, not `4.0`", "did you mean `4`?"),
        ("dtype=tru", "`dtype` of layout `other` is true or false, not `tru`", "did you mean `true`?"),
        ("dtype=no", "`dtype` of layout `other` is true or false, not `no`", "did you mean `false`?"),
        ("stages=a", "`stages` of layout `other` is a number, not `a`", "use --set stages=0.5"),
        ("optimizer=x", "`optimizer` of layout `other` is a whole number, not `x`", "use --set optimizer=1"),
        ("mapping=x", "`mapping` of layout `other` is a number, not `x`", "use --set mapping=1"),
        ("dp=x", "`dp` of layout `other` is a whole number, not `x`", "use --set dp=1"),
        ("scale=x", "`scale` of model `mlp` is a number, not `x`", "use --set scale=1.0"),
        ("twice=maybe", "`twice` of model `mlp` is true or false, not `maybe`", "use --set twice=false"),
        ("both=3", "`both` of model `mlp` is true or false, not `3`", "use --set both=true"),
    ],
)
def test_a_value_that_its_parameter_cannot_have_is_one_fault_with_the_kind_and_a_way_out(pair, is_, help, source, ckptc):
    done = ckptc("convert", source, "dst", "--to", "other", "--mapping", "m.ckmap", "--set", "hidden=4", "--set", pair)
    assert done.code == 1
    assert done.err.count("error[") == 1
    assert is_ in done.err.splitlines()[0]
    assert f"= help: {help}" in done.err
    assert not Path("dst").exists()


def test_the_option_that_was_given_is_the_one_that_is_named(source, ckptc):
    done = ckptc("convert", source, "dst", "--to", "other", "--mapping", "m.ckmap", "--set", "hidden=4", "--from-set", "width=x")
    assert "`width` of layout `plain` is a whole number, not `x`" in done.err
    assert "use --from-set width=2" in done.err


@pytest.mark.parametrize(("name", "value"), [("config", "4"), ("to", 5), ("dtype", 1), ("format", "seven"), ("twice", "true"), ("scale", "2")])
def test_python_values_are_held_to_the_same_kinds(name, value, source):
    with pytest.raises(face.Error, match=f"`{name}` of"):
        face.plan(source, to="other", mapping="m.ckmap", settings={"hidden": 4, name: value})


def test_a_value_of_the_declared_kind_is_taken_as_it_is(source, ckptc):
    said = {"kind": "12", "scale": 2, "twice": True, "top": 1e6, "least": 7}
    plan = face.plan(source, to="plain", mapping="m.ckmap", settings={"hidden": 4, **said})
    assert {name: plan.values[name] for name in said} == said
    words = [f"{name}={str(value).lower()}" for name, value in said.items()]
    done = ckptc("convert", source, "dst", "--to", "plain", "--mapping", "m.ckmap", "--set", "hidden=4", *(w for word in words for w in ("--set", word)))
    assert done.code == 0, done.err


def test_parameters_called_as_arguments_of_the_face_reach_their_layout(source, ckptc):
    said = {"dp": 2, "format": "nan", "to": "7", "config": 3, "stages": 0.25, "optimizer": 5, "mapping": 4, "dtype": True}
    words = [f"{name}={str(value).lower()}" for name, value in said.items()]
    done = ckptc("convert", source, "dst", "--to", "other", "--mapping", "m.ckmap", "--set", "hidden=4", *(w for word in words for w in ("--set", word)))
    assert done.code == 0, done.err
    plan = face.plan(source, to="other", mapping="m.ckmap", settings={"hidden": 4, **said})
    assert {**dict(plan.data.target.params), **dict(plan.data.target.ranks)} == {**said, "family": "blocks"}
    compiled = face.compile("m.ckmap", from_="plain", to="other", settings={"layer": 3, "ffn": 6, "hidden": 4, **said})
    assert compiled.data.target.params == plan.data.target.params
    back = face.plan("dst", to="plain", mapping="m.ckmap", settings={"hidden": 4}, from_settings={name: value for name, value in said.items() if name != "dp"})
    assert dict(back.data.source.params) == dict(plan.data.target.params)
