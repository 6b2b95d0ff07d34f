"""`ckptc inspect`: what a config is not, is said."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.face.conftest import Outcome


@pytest.mark.parametrize("name", ["notes.txt", "config", "model.cfg"])
def test_a_config_that_is_neither_json_nor_yaml_is_a_fault(name: str, out: Path, ckptc: Callable[..., Outcome]) -> None:
    Path(name).write_text("some: words\n")
    done = ckptc("inspect", out, "--config", name)
    assert done.code == 1
    assert done.err.startswith(f"error[bad-config]: {name} is neither JSON nor called as YAML\n")


@pytest.fixture
def out(llama: Path, ckptc: Callable[..., Outcome]) -> Path:
    """Rank files, which have no config beside them."""
    assert ckptc("convert", llama, "out", "--to", "nxdt", "--tp", 2, "--quiet").code == 0
    return Path("out")


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (None, "no-config", "named.json: No such file or directory"),
        ("{", "bad-config", "named.json cannot be read"),
        ("[1]", "bad-config", "named.json holds no settings"),
        ('{"a": 1}', "unbound-axis", "axis `group` has no size"),
    ],
    ids=["not there", "cut off", "a list", "of another kind"],
)
def test_a_config_that_is_named_and_does_not_serve_is_a_fault(text: str | None, code: str, words: str, out: Path, ckptc: Callable[..., Outcome]) -> None:
    if text is not None:
        Path("named.json").write_text(text)
    done = ckptc("inspect", out, "--config", "named.json", "--json")
    assert (done.code, done.err) == (1, "")
    error = json.loads(done.out)["error"]
    assert error["code"] == code
    assert words in error["title"]


def test_a_folder_without_a_config_is_a_fault(out: Path, ckptc: Callable[..., Outcome]) -> None:
    done = ckptc("inspect", out, "--config", out)
    assert done.code == 1
    assert done.err.startswith("error[no-config]: out/")


def test_a_config_of_other_sizes_is_a_fault_if_it_is_named_and_a_note_if_not(llama: Path, out: Path, ckptc: Callable[..., Outcome]) -> None:
    config = json.loads((llama / "config.json").read_text())
    Path("other.json").write_text(json.dumps({**config, "hidden_size": 97}))
    done = ckptc("inspect", out, "--config", "other.json")
    assert done.code == 1
    assert done.err.startswith("error[wrong-shape]: other.json does not fit 86 tensors of out\n")
    assert "`model.embed_tokens.weight` is [160, 96], expected [160, 97]" in done.err
    shutil.copytree(llama, "own")
    shutil.copy("other.json", "own/config.json")
    found = json.loads(ckptc("inspect", "own", "--json").out)
    assert (found["family"], found["axes"]) == ("llama", {})
    assert found["notes"][0] == "own/config.json does not fit 48 tensors of own"
    Path("own/config.json").write_text("{")
    found = json.loads(ckptc("inspect", "own", "--json").out)
    assert found["notes"][0].startswith("own/config.json cannot be read")


def test_a_framework_s_own_file_may_name_the_config(llama: Path, out: Path, ckptc: Callable[..., Outcome]) -> None:
    Path("run.yaml").write_text("model: {model_config: llama-hf/config.json}\n")
    found = json.loads(ckptc("inspect", out, "--config", "run.yaml", "--json").out)
    assert (found["family"], found["axes"]["hidden"]) == ("llama", 96)


@pytest.mark.parametrize(("to", "place"), [("nemo", "x.nemo"), ("nemo-legacy", "y.nemo"), ("nemo-dist", "folder")])
def test_a_family_that_no_config_names_is_the_one_that_convert_takes(to: str, place: str, llama: Path, ckptc: Callable[..., Outcome]) -> None:
    assert ckptc("convert", llama, place, "--to", to, "--quiet").code == 0
    said = json.loads(ckptc("inspect", place, "--json").out)
    assert (said["family"], said["layout"]) == ("llama", to)
    assert "plan    llama: " in ckptc("convert", place, "back", "--to", "hf", "--dry-run").out
