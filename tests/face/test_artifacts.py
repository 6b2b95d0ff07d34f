"""The names of artifacts in a .nemo archive, and the config's text that refers to them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from ckptc.configs.yaml_text import set_scalar, value_at
from ckptc.nemo.artifacts import name_artifacts, numbered_name
from ckptc.runtime.files.window import SideFile

MODEL = b"\x0a\x05\x0a\x03abc"  # a piece of SentencePiece's ModelProto
OLD = "0123456789abcdef0123456789abcdef_spm.model"


def side(folder: Path, name: str, data: bytes, before: bytes = b"") -> SideFile:
    (folder / name).write_bytes(before + data + b"after")
    return SideFile(name, str(folder / name), len(before), len(data))


def number(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]


def test_each_path_gets_its_file_and_comments_stay(tmp_path: Path) -> None:
    text = (
        "# a model\nhidden_size: 16  # wide\ntokenizer:\n  library: megatron\n  model: null\n"
        "  vocab_file: '/data/my vocab.json'  # words\n  merge_file: merges.txt\n  tokenizer_model: ~\n"
    )
    files = [side(tmp_path, "my vocab.json", b"v" * 70, b"xx"), side(tmp_path, "merges.txt", b"m"), side(tmp_path, "other.txt", b"o")]
    out, named = name_artifacts(text, files)
    tokenizer = yaml.safe_load(out)["tokenizer"]
    assert tokenizer["vocab_file"] == f"nemo:{number(b'v' * 70)}_my vocab.json"
    assert tokenizer["merge_file"] == f"nemo:{number(b'm')}_merges.txt"
    assert (tokenizer["model"], tokenizer["tokenizer_model"]) == (None, None)
    assert {each.name for each in named} == {f"{number(b'v' * 70)}_my vocab.json", f"{number(b'm')}_merges.txt", "other.txt"}
    assert out.splitlines()[:2] == text.splitlines()[:2]
    assert out.splitlines()[5].endswith("# words")


@pytest.mark.parametrize("value", ["null", "", "~", '""', "tokenizer.model", "/some/where/tokenizer.model"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_a_sentencepiece_tokenizer_is_found_by_its_usual_name(value: str, wrapped: bool, tmp_path: Path) -> None:
    text = f"tokenizer:\n  library: sentencepiece\n  model: {value}\n  type: null\n"
    text = f"model:\n  {text}".replace("\n  l", "\n    l").replace("\n  m", "\n    m").replace("\n  type", "\n    type") if wrapped else text
    out, named = name_artifacts(text, [side(tmp_path, "tokenizer.model", MODEL)])
    assert value_at(yaml.safe_load(out), ("tokenizer", "model")) == f"nemo:{number(MODEL)}_tokenizer.model"
    assert value_at(yaml.safe_load(out), ("tokenizer", "library")) == "sentencepiece"
    assert [each.name for each in named] == [f"{number(MODEL)}_tokenizer.model"]


@pytest.mark.parametrize("data", [b"IQ== 0\nIg== 1\n", b'{"version": "1.0"}', b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"], ids=["tiktoken", "json", "git-lfs"])
def test_a_file_of_that_name_that_is_no_sentencepiece_model_is_not_named(data: bytes, tmp_path: Path) -> None:
    """Llama 3's tokenizer.model, as Meta publishes it, is tiktoken's text."""
    text = "tokenizer:\n  library: sentencepiece\n  model: null\n"
    out, named = name_artifacts(text, [side(tmp_path, "tokenizer.model", data)])
    assert out == text
    assert [each.name for each in named] == ["tokenizer.model"]


def test_other_tokenizers_keep_what_they_say(tmp_path: Path) -> None:
    text = "tokenizer:\n  library: huggingface\n  type: org/name\n  model: null\n"
    out, named = name_artifacts(text, [side(tmp_path, "tokenizer.model", b"p")])
    assert out == text
    assert [each.name for each in named] == ["tokenizer.model"]
    assert name_artifacts("hidden_size: 3\n", []) == ("hidden_size: 3\n", ())


def test_numbered_files_keep_their_names(tmp_path: Path) -> None:
    old = side(tmp_path, OLD, b"p")
    assert numbered_name(old) == OLD
    referring = f"tokenizer:\n  library: sentencepiece\n  model: nemo:{OLD}\n"
    assert name_artifacts(referring, [], [old]) == (referring, (old,))
    out, named = name_artifacts("tokenizer:\n  model: spm.model\n", [old])
    assert yaml.safe_load(out) == {"tokenizer": {"model": f"nemo:{OLD}"}}
    assert named == (old,)


@pytest.mark.parametrize("value", [3, -1, 1.5e-05, 1e-05, True, None, "bf16", "16", "a: b", "x # y", "no", "é", "", "nemo:ab_c.model", "a:", "0x1f", "1e3"])
def test_a_value_is_set_and_all_else_stays(value: Any) -> None:
    text = "a: 1  # one\nb: {c: 2, d: [3]}\ne:\nf: 'x'\nnone:"
    for keys in (("a",), ("b", "c"), ("e",), ("f",), ("none",), ("new",)):
        out = set_scalar(text, keys, value)
        wanted = yaml.safe_load(text)
        (wanted if len(keys) == 1 else wanted["b"])[keys[-1]] = value
        assert yaml.safe_load(out) == wanted
        assert "# one" in out
    shared = set_scalar("a: &x 1\nb: *x\nmodel: {c: *x}\n", ("b",), value)
    assert yaml.safe_load(shared) == {"a": 1, "b": value, "model": {"c": 1}}
    assert yaml.safe_load(set_scalar(shared, ("c",), value))["model"] == {"c": value}
    with pytest.raises(KeyError):
        set_scalar(text, ("b", "x"), value)
