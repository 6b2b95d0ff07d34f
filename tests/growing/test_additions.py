"""A family touches one file, a framework's layout one file, a format one folder: an invented one of each, added from outside."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ckptc
from tests.held import read, same
from tests.plans import llama

ORCA = """
use "huggingface.ckmap"
model orca extends decoder { settings { qk_norm = true } }
layout hf of orca extends llama-names {
  config {
    is .model_type "orca"
    .architectures = ["OrcaForCausalLM"]
  }
  under block {
    "input_layernorm.weight" = attn_norm [hidden]  - 1
    "self_attn.q_norm.weight" = q_norm [dim]
    "self_attn.k_norm.weight" = k_norm [dim]
  }
}
"""

TOY = """
use "llama.ckmap"
layout toy of decoder (rank tp = 1) {
  files "toy_{tp}.pt"
  format pt
  "emb" = embed [vocab, hidden/tp]
  under "block.{layer + 1}." {
    "n1" = attn_norm [hidden]
    "kqv" = [(k: (group dim)/tp + q: (group share dim)/tp + v: (group dim)/tp), hidden]
    "out" = o [(group share dim)/tp, hidden]
    "n2" = mlp_norm [hidden]
    "gu" = [(up: ffn/tp + gate: ffn/tp), hidden]
    "down" = down [hidden, ffn/tp]
  }
  "n" = norm [hidden]
  "head" = head [vocab/tp, hidden]
  omit (inv_freq rope_freq)
}
"""

# Numbers in one file, after a line of JSON that says where each is.
FLAT = '''
import json
from dataclasses import dataclass
from math import prod

from ckptc.runtime.files.file_layout import Region
from ckptc.runtime.files.format import Contents, Format, Found
from ckptc.runtime.files.shards import lay_out_files
from ckptc.runtime.files.window import ITEM_BYTES, Entry, Window, row_major


@dataclass(frozen=True)
class Layout:
    regions: tuple
    size: int
    needs_crc: bool = False

    def trail(self, i, crc):
        return b""

    def tail(self, crcs):
        return b""


def layout_of(tensors):
    at, where = 0, {}
    for name, dtype, shape in tensors:
        where[name] = [dtype, list(shape), at]
        at += prod(shape) * ITEM_BYTES[dtype]
    lead = json.dumps(where).encode() + b"\\\\n"
    regions = tuple(
        Region(name, dtype, shape, len(lead) + where[name][2], prod(shape) * ITEM_BYTES[dtype], b"" if i else lead)
        for i, (name, dtype, shape) in enumerate(tensors)
    )
    return Layout(regions, len(lead) + at)


def lay_out(tensors):
    return lay_out_files(tensors, "all", "flat", lambda _, members: layout_of([tensors.described(i) for i in members]), one=True)


def find(place):
    files = tuple(name for name in place.names() if name.endswith(".flat")) if place.is_folder else ()
    return Found(place.path, "flat", files, flat=True) if files else None


def read(found):
    entries = []
    for file in found.files:
        path = found.place(file)[0]
        with open(path, "rb") as stream:
            lead = stream.readline()
        for name, (dtype, shape, at) in json.loads(lead).items():
            entries.append(Entry(name, file, Window(path, len(lead) + at, tuple(shape), row_major(tuple(shape)), dtype)))
    return Contents(found.format, entries)


FORMAT = Format("flat", lay_out, find, read, suffixes=(".flat",))
'''.replace("\\\\n", "\\n")

FLAT_MAPPING = """
use "llama.ckmap"
layout poured of decoder {
  format flat
  "embed" = embed [vocab, hidden]
  under "{layer}." {
    "attn_norm" = attn_norm [hidden]
    "q" = q [group, share, dim, hidden]
    "k" = k [group, dim, hidden]
    "v" = v [group, dim, hidden]
    "o" = o [hidden, group, share, dim]
    "mlp_norm" = mlp_norm [hidden]
    "gate" = gate [ffn, hidden]
    "up" = up [ffn, hidden]
    "down" = down [hidden, ffn]
  }
  "norm" = norm [hidden]
  "head" = head [vocab, hidden]
  omit (inv_freq rope_freq)
}
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "hf"
    llama.write(folder, llama.Llama())
    return folder


def test_a_family_is_one_file(tmp_path: Path, source: Path) -> None:
    mapping = tmp_path / "orca.ckmap"
    mapping.write_text(ORCA)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "model_type": "orca", "architectures": ["OrcaForCausalLM"]}))
    held = read(source)
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    for layer in range(config["num_hidden_layers"]):
        norm = held[f"model.layers.{layer}.input_layernorm.weight"]
        norm.copy_(torch.randint(-32, 32, norm.shape) / 64)  # one more, and one less again, is the same then
        for name in ("q_norm", "k_norm"):
            held[f"model.layers.{layer}.self_attn.{name}.weight"] = torch.randn(dim).to(next(iter(held.values())).dtype)
    from safetensors.torch import save_file

    for old in source.glob("*.safetensors*"):
        old.unlink()
    save_file(held, source / "model.safetensors")
    ckptc.convert(source, tmp_path / "mcore", to="megatron", mapping=mapping)
    ranks = read(tmp_path / "mcore")
    stacked = ranks["decoder.layers.self_attention.linear_qkv.layer_norm_weight"]
    assert torch.equal(stacked[1], held["model.layers.1.input_layernorm.weight"] + 1)
    ckptc.convert(tmp_path / "mcore", tmp_path / "back", to="hf", mapping=mapping, config=source / "config.json")
    assert same(read(tmp_path / "back"), held)
    assert json.loads((tmp_path / "back/config.json").read_text())["model_type"] == "orca"


def test_a_framework_is_one_file(tmp_path: Path, source: Path) -> None:
    mapping = tmp_path / "toy.ckmap"
    mapping.write_text(TOY)
    held = read(source)
    ckptc.convert(source, tmp_path / "toy", to="toy", mapping=mapping, tp=3)
    rank = torch.load(tmp_path / "toy/toy_1.pt")
    k, q = held["model.layers.0.self_attn.k_proj.weight"], held["model.layers.0.self_attn.q_proj.weight"]
    few, more = k.shape[0] // 3, q.shape[0] // 3
    assert torch.equal(rank["block.1.kqv"][:few], k[few : 2 * few])
    assert torch.equal(rank["block.1.kqv"][few : few + more], q[more : 2 * more])
    assert torch.equal(rank["block.1.out"], held["model.layers.0.self_attn.o_proj.weight"].T[more : 2 * more])
    ckptc.convert(tmp_path / "toy", tmp_path / "back", to="hf", mapping=mapping, config=source / "config.json")
    assert same(read(tmp_path / "back"), held)


def test_a_format_is_one_folder_that_a_plugin_brings(tmp_path: Path, source: Path) -> None:
    plugin = tmp_path / "site"
    (plugin / "pouring").mkdir(parents=True)
    (plugin / "pouring/__init__.py").write_text(FLAT)
    (plugin / "pouring-1.0.dist-info").mkdir()
    (plugin / "pouring-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: pouring\nVersion: 1.0\n")
    (plugin / "pouring-1.0.dist-info/entry_points.txt").write_text("[ckptc.formats]\nflat = pouring:FORMAT\n")
    mapping = tmp_path / "poured.ckmap"
    mapping.write_text(FLAT_MAPPING)
    script = (
        f"import sys; sys.path.insert(0, {str(plugin)!r})\n"
        "from ckptc.main import invoke\n"
        f"invoke(['check', {str(mapping)!r}])\n"
        f"invoke(['convert', {str(source)!r}, 'poured', '--to', 'poured', '--mapping', {str(mapping)!r}, '-q'])\n"
        f"invoke(['convert', 'poured', 'back', '--to', 'hf', '--mapping', {str(mapping)!r}, '--config', {str(source / 'config.json')!r}, '-q'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in (tmp_path / "poured").iterdir()] == ["all.flat"]
    assert same(read(tmp_path / "back"), read(source))


def test_without_the_plugin_its_format_is_none(tmp_path: Path) -> None:
    mapping = tmp_path / "poured.ckmap"
    mapping.write_text(FLAT_MAPPING)
    done = subprocess.run([sys.executable, "-m", "ckptc", "check", str(mapping)], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 1
    assert "there is no format `flat`" in done.stderr
