"""Config keys, misspelt: `check` warns of them where the right one is read elsewhere, and of none of the shipped ones."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from ckptc.compiler.check.check_keys import odd_keys
from ckptc.dsl.diagnostic import Diagnostic
from ckptc.dsl.parsing.parse import parse
from ckptc.dsl.tree import Key
from ckptc.dsl.walk import walk
from ckptc.library.mapping_files import SHIPPED, load, read_mapping, used_by

from .test_misspellings import misspelt


def odd(path: Path) -> list[Diagnostic]:
    return list(odd_keys(read_mapping(path), used_by(path), load([path], bases=True)))


def test_no_shipped_key_looks_misspelt() -> None:
    for path in sorted(SHIPPED.glob("*.ckmap")):
        assert odd(path) == []


def keys(families: str, draw: random.Random, count: int) -> list[tuple[str, Key]]:
    """Keys of these files that are read in huggingface.ckmap too."""
    shared = {node.path for node in walk(read_mapping(SHIPPED / "huggingface.ckmap")) if isinstance(node, Key)}
    found = [(file, node) for file in families.split() for node in walk(read_mapping(SHIPPED / f"{file}.ckmap")) if isinstance(node, Key)]
    found = [(file, node) for file, node in found if node.path in shared and len(node.path[-1]) > 4]
    return draw.sample(found, count)


@pytest.mark.parametrize(("file", "key"), keys("stablelm starcoder2 helium gemma deepseek mixtral qwen2 nemotron", random.Random(3), 12), ids=str)
def test_a_misspelt_key_is_warned_of_at_its_place(file: str, key: Key, tmp_path: Path) -> None:
    text = (SHIPPED / f"{file}.ckmap").read_text()
    wrong = misspelt(key.path[-1], random.Random(key.span.line))
    lines = text.split("\n")
    line = lines[key.span.line - 1]
    at = line.index(f".{key.dotted}", key.span.column - 1)
    lines[key.span.line - 1] = line[:at] + f".{'.'.join((*key.path[:-1], wrong))}" + line[at + len(key.dotted) + 1 :]
    path = tmp_path / f"{file}.ckmap"
    path.write_text("\n".join(lines))
    (found,) = odd(path)
    assert found.severity == "warning"
    assert found.labels[0].span.line == key.span.line
    assert found.help == f"did you mean `.{key.dotted}`?"


@pytest.mark.parametrize(
    ("own", "wanted"),
    [
        ("hidden = .hiden_size", [".hidden_size"]),  # one letter less
        ("hidden = .deep.hidden_size", []),  # another path
        ("rope = .qk_rope_dim  nope = .qk_nope_dim", []),  # in one file two keys that differ in a letter are two on purpose
        ("rope = .qk_rope_dim  nope = .qk_rope_dmi", [".qk_rope_dmi", ".qk_rope_dim"]),  # but not with letters exchanged
        ("hidden = .hidden_sizes ?? .hidden_sizes", []),  # said twice
        ("rope = .abd  nope = .abc", []),  # short words resemble each other
    ],
)
def test_what_a_slip_is(own: str, wanted: list[str]) -> None:
    base = parse('base layout b of m { config "c.json" { hidden = .hidden_size  rope = .other  nope = .another } }', "base.ckmap")
    mine = parse(f"layout l of m extends b {{ config {{ {own} }} }}", "mine.ckmap")
    assert [each.help for each in odd_keys(mine, [base], ())] == [f"did you mean `{key}`?" for key in wanted]
    assert list(odd_keys(base, [], ())) == []


def test_check_warns_of_the_file_that_is_named_alone(tmp_path: Path) -> None:
    path = tmp_path / "orca.ckmap"
    path.write_text('''use "llama.ckmap"
model orca extends llama {}
layout hf of orca extends hf { config { is .model_type "orca"  .architectures = ["OrcaForCausalLM"]  hidden = .hiden_size } }
''')
    run = subprocess.run([sys.executable, "-m", "ckptc", "check", str(path)], capture_output=True, text=True, check=False)
    assert run.returncode == 0
    assert run.stderr.count("warning[") == 1
    assert "did you mean `.hidden_size`?" in run.stderr
    path.write_text(path.read_text().replace("hiden", "hidden"))
    run = subprocess.run([sys.executable, "-m", "ckptc", "check", str(path)], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.endswith("orca.ckmap: 1 model, 1 layout, no faults\n")
