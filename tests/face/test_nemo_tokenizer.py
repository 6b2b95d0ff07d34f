"""Which tokenizer NeMo 1's config names, by the files that HuggingFace's folder has: one that NeMo can load, or a note."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import ckptc
from tests.plans.llama import Llama

MODEL = b"\x0a\x05\x0a\x03abc"  # a piece of SentencePiece's ModelProto
TIKTOKEN = b"IQ== 0\nIg== 1\n"
JSON = b'{"version": "1.0"}'


def folder(place: Path, files: dict[str, bytes]) -> Path:
    from safetensors.torch import save_file

    place.mkdir()
    save_file(Llama().tensors(), place / "model.safetensors")
    (place / "config.json").write_text(json.dumps(Llama().config()))
    for name, data in files.items():
        (place / name).write_bytes(data)
    return place


def archived(path: Path) -> tuple[dict[str, Any], set[str]]:
    with tarfile.open(path) as tar:
        names = {n.removeprefix("./") for n in tar.getnames()}
        text = tar.extractfile(next(n for n in tar.getnames() if n.endswith("model_config.yaml")))
        assert text is not None
        return yaml.safe_load(text.read())["tokenizer"], names


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer.json": JSON, "tokenizer_config.json": b"{}"}, {"vocab.json": b"{}", "merges.txt": b"#version"},
        {"tokenizer.json": JSON, "tokenizer.model": TIKTOKEN}, {"tokenizer.json": JSON, "vocab.json": b"{}", "merges.txt": b"#version"},
    ],
    ids=["json", "vocab", "json-and-tiktoken", "qwen2"],
)  # fmt: skip
@pytest.mark.parametrize("to", ["nemo", "nemo-legacy", "nemo-dist"])
def test_huggingfaces_tokenizer_is_named_by_its_folder(files: dict[str, bytes], to: str, tmp_path: Path) -> None:
    """NeMo: get_nmt_tokenizer(library="huggingface", model_name=type, use_fast=...), and AutoTokenizer.from_pretrained(type)."""
    source = folder(tmp_path / "hf", files)
    plan = ckptc.plan(source, to=to)
    assert [note for note in plan.notes if note.startswith(f"the config's tokenizer is that of HuggingFace at {source}")]
    plan.run(tmp_path / "out.nemo")
    said, _ = archived(tmp_path / "out.nemo")
    assert (said["library"], said["type"], said["model"], said["use_fast"]) == ("huggingface", str(source), None, True)


def test_a_sentencepiece_model_goes_into_the_archive(tmp_path: Path) -> None:
    source = folder(tmp_path / "hf", {"tokenizer.model": MODEL, "tokenizer.json": JSON})
    plan = ckptc.plan(source, to="nemo")
    assert plan.notes == ()
    plan.run(tmp_path / "out.nemo")
    said, names = archived(tmp_path / "out.nemo")
    assert (said["library"], said["type"]) == ("sentencepiece", None)
    assert said["model"].removeprefix("nemo:") in names


@pytest.mark.parametrize(("files", "why"), [({"tokenizer.model": TIKTOKEN}, "no SentencePiece model but tiktoken's ranks"), ({}, "none beside the source")], ids=["tiktoken", "none"])
def test_what_nemo_cannot_load_is_not_named_and_is_said(files: dict[str, bytes], why: str, tmp_path: Path) -> None:
    plan = ckptc.plan(folder(tmp_path / "hf", files), to="nemo")
    assert [note for note in plan.notes if why in note and "set `tokenizer`" in note]
    plan.run(tmp_path / "out.nemo")
    said, _ = archived(tmp_path / "out.nemo")
    assert said["model"] is None


def test_a_tokenizer_beside_the_config_is_meant_where_the_weights_have_none(tmp_path: Path) -> None:
    """Megatron-core's distributed checkpoint has no tokenizer, the HuggingFace folder of --config has."""
    source = folder(tmp_path / "hf", {"tokenizer.json": JSON})
    ckptc.convert(source, tmp_path / "dist", to="megatron")
    ckptc.convert(tmp_path / "dist", tmp_path / "out.nemo", to="nemo", config=source / "config.json")
    said, _ = archived(tmp_path / "out.nemo")
    assert (said["library"], said["type"]) == ("huggingface", str(source))


def test_nemos_own_config_is_left_as_it_is(tmp_path: Path) -> None:
    ckptc.convert(folder(tmp_path / "hf", {}), tmp_path / "one", to="nemo")
    (tmp_path / "one/tokenizer.json").write_bytes(JSON)
    plan = ckptc.plan(tmp_path / "one", to="nemo", tp=1)
    plan.run(tmp_path / "two")
    assert (tmp_path / "two/model_config.yaml").read_bytes() == (tmp_path / "one/model_config.yaml").read_bytes()
    assert not [note for note in plan.notes if "tokenizer" in note]
