"""A layout's config, written from sizes when the other layout's is at hand: solved backwards, and read again alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import ckptc
from ckptc import MappingError

MAPPING = """
model net {
  axes { vocab layer hidden group share dim }
  settings { gated = true  scale = 1.0 }
  embed [vocab, hidden]
  q     [layer, group, share, dim, hidden]
}

layout flat of net {
  format safetensors
  config "config.json" {
    vocab  = .vocab_size
    layer  = .num_layers
    hidden = .heads * .head_size
    group  = .kv_heads ?? .heads
    share  = .heads / group
    dim    = .head_size
    gated  = .act == "swiglu"
    scale  = .embed_scale
  }
  "embed"     = embed [vocab, hidden]
  "q.{layer}" = q [(group share dim), hidden]
}

layout deep of net (rank tp = 1) {
  files "part_{tp:02}.pt"
  format pt
  config "model.yaml" template "model.yaml.j2" {
    vocab  = .model.vocab
    layer  = .model.layers
    hidden = .model.width
    group  = .model.attention.groups
    share  = .model.attention.heads / group
    dim    = .model.width / .model.attention.heads
    gated  = not .model.plain
    scale  = .model.scale
  }
  "embed"     = embed [vocab/tp, hidden]
  "q.{layer}" = q [(group/tp share dim), hidden]
}
"""
TEMPLATE = """# comments do not survive
trainer: {precision: bf16, devices: {{ tp }}}
model:
  name: net-{{ layer }}x{{ hidden }}
  width: 1
  attention: {flash: true}
"""
KEYS = {"vocab_size": 26, "num_layers": 3, "heads": 6, "kv_heads": 2, "head_size": 5, "act": "swiglu", "embed_scale": 0.5, "note": "ünïcode"}


def numbers(plan: ckptc.Plan) -> dict[str, int]:
    """The axes and the settings that are whole numbers."""
    return {name: value for name, value in plan.values.items() if type(value) is int}


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir()
    (tmp_path / "own/net.ckmap").write_text(MAPPING)
    (tmp_path / "own/model.yaml.j2").write_text(TEMPLATE)
    return tmp_path / "own/net.ckmap"


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    (tmp_path / "flat").mkdir()
    save_file({"embed": torch.randn(26, 30), **{f"q.{i}": torch.randn(30, 30) for i in range(3)}}, tmp_path / "flat/model.safetensors")
    (tmp_path / "flat/config.json").write_text(json.dumps(KEYS))
    return tmp_path / "flat"


def test_a_config_is_written_through_its_template_with_nested_keys(mapping: Path, flat: Path, tmp_path: Path) -> None:
    plan = ckptc.plan(flat, to="deep", mapping=mapping, tp=2)
    plan.run(tmp_path / "deep")
    assert yaml.safe_load((tmp_path / "deep/model.yaml").read_text()) == {
        "trainer": {"precision": "bf16", "devices": 2},
        "model": {
            "name": "net-3x30", "width": 30, "vocab": 26, "layers": 3, "plain": False, "scale": 0.5,
            "attention": {"flash": True, "groups": 2, "heads": 6},
        },
    }  # fmt: skip


def test_a_written_config_reads_as_the_same_sizes_and_goes_back(mapping: Path, flat: Path, tmp_path: Path) -> None:
    there = ckptc.plan(flat, to="deep", mapping=mapping, tp=2)
    there.run(tmp_path / "deep")
    back = ckptc.plan(tmp_path / "deep", to="flat", mapping=mapping)
    assert numbers(back) == numbers(there)
    back.run(tmp_path / "again")
    held, was = load_file(tmp_path / "again/model.safetensors"), load_file(flat / "model.safetensors")
    assert all(torch.equal(held[n], was[n]) for n in was)
    written = json.loads((tmp_path / "again/config.json").read_text())
    assert written == {k: v for k, v in KEYS.items() if k != "note"}
    third = ckptc.plan(tmp_path / "again", to="deep", mapping=mapping, tp=1)
    assert numbers(third) == numbers(there)


def test_the_layouts_own_config_is_kept_byte_for_byte(mapping: Path, flat: Path, tmp_path: Path) -> None:
    ckptc.convert(flat, tmp_path / "out", to="flat", mapping=mapping)
    assert (tmp_path / "out/config.json").read_bytes() == (flat / "config.json").read_bytes()
    ckptc.convert(flat, tmp_path / "deep", to="deep", mapping=mapping, tp=2)
    ckptc.convert(tmp_path / "deep", tmp_path / "back", to="flat", mapping=mapping, config=flat / "config.json")
    assert (tmp_path / "back/config.json").read_bytes() == (flat / "config.json").read_bytes()


def test_a_mapping_is_found_from_its_own_folder_too(mapping: Path, flat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, name in ((mapping.parent, "net.ckmap"), (tmp_path, "own/net.ckmap"), (flat, "../own/net.ckmap")):
        monkeypatch.chdir(folder)
        plan = ckptc.plan(flat, to="deep", mapping=name, tp=2)
        assert "devices: 2" in dict(plan.data.files)["model.yaml"]


@pytest.mark.parametrize(
    ("text", "code"),
    [(None, "no-template"), (b"\xff\xfe", "not-text"), (b"a: {{ nothing }}", "bad-template"), (b"{% if %}", "bad-template"), (b"- a list", "bad-template-text"), (b"a: [", "bad-template-text")],
)
def test_a_template_that_is_missing_or_broken_is_one_diagnostic(text: bytes | None, code: str, mapping: Path, flat: Path, tmp_path: Path) -> None:
    template = mapping.parent / "model.yaml.j2"
    template.unlink() if text is None else template.write_bytes(text)
    with pytest.raises(MappingError) as error:
        ckptc.plan(flat, to="deep", mapping=mapping, tp=2)
    (found,) = error.value.diagnostics
    assert found.code == code
    assert "model.yaml.j2" in found.title
    assert found.labels[0].span.line == MAPPING[: MAPPING.index('config "model.yaml"')].count("\n") + 1


@pytest.mark.parametrize(
    ("changed", "keys"),
    [
        ({"kv_heads": ...}, {"groups": 6, "heads": 6}),
        ({"kv_heads": 6}, {"groups": 6, "heads": 6}),
        ({"kv_heads": 3}, {"groups": 3, "heads": 6}),
        ({"act": "gelu"}, {}),
    ],
)
def test_keys_are_solved_backwards(changed: dict[str, Any], keys: dict[str, int], mapping: Path, flat: Path) -> None:
    (flat / "config.json").write_text(json.dumps({k: v for k, v in (KEYS | changed).items() if v is not ...}))
    plan = ckptc.plan(flat, to="deep", mapping=mapping)
    written = yaml.safe_load(dict(plan.data.files)["model.yaml"])["model"]
    assert {k: written["attention"][k] for k in keys} == keys
    assert written["plain"] is ("act" in changed)
