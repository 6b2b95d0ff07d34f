"""Tensors that a layout leaves out on purpose, and tensors that are calculated because the source lacks them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ckptc
from ckptc.dsl import MappingError

MAPPING = """
model m {
  axes { vocab hidden pair }
  settings { base = 50.0 }
  embed    [vocab, hidden]
  inv_freq [pair]  optional
}
layout bare of m {
  files "bare.pt"
  format pt
  "embed" = embed [vocab, hidden]
  omit (inv_freq)
}
layout kept of m {
  files "kept.pt"
  format pt
  "embed"    = embed    [vocab, hidden]
  "inv_freq" = inv_freq [pair]  optional made rope(base)
}
layout may of m {
  files "may.pt"
  format pt
  "embed" = embed    [vocab, hidden]
  "freq"  = inv_freq [pair]
}
layout strict of m {
  files "strict.pt"
  format pt
  "embed" = embed [vocab, hidden]
}
"""
EMBED = torch.arange(15.0).reshape(5, 3)
FREQ = torch.tensor([0.5, 0.25, 0.125, 0.0625])


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    (tmp_path / "m.ckmap").write_text(MAPPING)
    return tmp_path / "m.ckmap"


def convert(mapping: Path, to: str, **tensors: torch.Tensor) -> dict[str, torch.Tensor]:
    source = mapping.parent / ("kept" if "inv_freq" in tensors else "bare")
    source.mkdir()
    torch.save(tensors, source / f"{source.name}.pt")
    ckptc.plan(source, to=to, from_=source.name, mapping=mapping, settings={"pair": 4}).run(mapping.parent / "out")
    return dict(torch.load(mapping.parent / f"out/{to}.pt", weights_only=True))


def test_what_the_source_lacks_is_calculated(mapping: Path) -> None:
    out = convert(mapping, "kept", embed=EMBED)
    assert torch.equal(out["embed"], EMBED)
    assert out["inv_freq"].dtype == torch.float32
    assert torch.allclose(out["inv_freq"].double(), torch.tensor([50.0 ** (-2 * i / 8) for i in range(4)]).double(), rtol=1e-7, atol=0)


def test_what_the_source_has_is_kept(mapping: Path) -> None:
    assert torch.equal(convert(mapping, "kept", embed=EMBED, inv_freq=FREQ)["inv_freq"], FREQ)


def test_what_a_layout_omits_is_left_out(mapping: Path) -> None:
    assert set(convert(mapping, "bare", embed=EMBED, inv_freq=FREQ)) == {"embed"}


def test_what_a_layout_does_not_speak_of_is_an_error(mapping: Path) -> None:
    with pytest.raises(MappingError, match="inv_freq"):
        convert(mapping, "strict", embed=EMBED, inv_freq=FREQ)


def test_within_a_layout_nothing_is_made(mapping: Path) -> None:
    source = mapping.parent / "source"
    source.mkdir()
    torch.save({"embed": EMBED}, source / "kept.pt")
    ckptc.plan(source, to="kept", from_="kept", mapping=mapping, settings={"pair": 4}).run(mapping.parent / "out")
    assert set(torch.load(mapping.parent / "out/kept.pt", weights_only=True)) == {"embed"}


def test_a_saved_plan_makes_it_too(mapping: Path) -> None:
    source = mapping.parent / "bare"
    source.mkdir()
    torch.save({"embed": EMBED}, source / "bare.pt")
    ckptc.plan(source, to="kept", from_="bare", mapping=mapping, settings={"pair": 4}).save(mapping.parent / "plan.json")
    ckptc.load_plan(mapping.parent / "plan.json").run(mapping.parent / "out", source=source)
    assert torch.load(mapping.parent / "out/kept.pt", weights_only=True)["inv_freq"].shape == (4,)


def test_what_is_calculated_on_one_side_is_not_stored_on_a_side_that_need_not_have_it(mapping: Path) -> None:
    assert set(convert(mapping, "may", embed=EMBED, inv_freq=FREQ)) == {"embed"}
    plan = ckptc.plan(mapping.parent / "kept", to="may", from_="kept", mapping=mapping, settings={"pair": 4})
    assert plan.data.target.omitted == ("inv_freq",)
    assert "left out on purpose: inv_freq" in str(plan)


def test_what_files_have_that_nothing_calculates_goes_on(mapping: Path) -> None:
    source = mapping.parent / "source"
    source.mkdir()
    torch.save({"embed": EMBED, "freq": FREQ}, source / "may.pt")
    for to, name in (("may", "freq"), ("kept", "inv_freq")):
        ckptc.plan(source, to=to, from_="may", mapping=mapping, settings={"pair": 4}).run(mapping.parent / to)
        assert torch.equal(torch.load(mapping.parent / to / f"{to}.pt", weights_only=True)[name], FREQ)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64"])
def test_a_cast_is_for_weights_and_leaves_what_is_calculated_or_optional(mapping: Path, dtype: str) -> None:
    odd = FREQ + 2.0**-12  # neither bfloat16 nor float16 has these
    for folder, layout, tensors in (("bare", "bare", {"embed": EMBED}), ("full", "may", {"embed": EMBED, "freq": odd})):
        source = mapping.parent / folder
        source.mkdir()
        torch.save(tensors, source / f"{layout}.pt")
        ckptc.plan(source, to="kept", from_=layout, mapping=mapping, settings={"pair": 4}, dtype=dtype).run(mapping.parent / f"out-{folder}")
        out = torch.load(mapping.parent / f"out-{folder}/kept.pt", weights_only=True)
        assert out["embed"].dtype == getattr(torch, dtype)
        assert out["inv_freq"].dtype == torch.float32
    assert torch.equal(out["inv_freq"], odd)
