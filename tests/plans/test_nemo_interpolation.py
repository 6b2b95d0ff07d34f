"""Configs of NeMo 1 with OmegaConf's interpolations, and with tokenizers that are only named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import ckptc
from ckptc.runtime.fault import Fault

from .llama import Llama, write

TINY = Llama(vocab=70, layers=2, hidden=48, ffn=84, heads=6, groups=3, dim=10)


@pytest.fixture
def hf(tmp_path: Path) -> Path:
    return write(tmp_path / "hf", TINY, side=False)


def said(hf: Path, folder: Path, **changes: Any) -> Path:
    """The model as a folder of an archive's content, whose config has these settings."""
    ckptc.convert(hf, folder, to="nemo")
    config = folder / "model_config.yaml"
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), **changes}))
    return folder


def test_interpolations_of_a_config_are_worked_out(hf: Path, tmp_path: Path) -> None:
    """As in megatron_gpt_config.yaml and megatron_llama_config.yaml of NeMo (examples/nlp/language_modeling/conf)."""
    config = yaml.safe_load((said(hf, tmp_path / "plain") / "model_config.yaml").read_text())
    half, places = config["ffn_hidden_size"] // 2, config["max_position_embeddings"]
    assert half * 2 == config["ffn_hidden_size"]
    odd = said(
        hf, tmp_path / "odd", half=half, ffn_hidden_size="${multiply:2, ${.half}}", encoder_seq_length=places,
        max_position_embeddings="${.encoder_seq_length}", num_layers="${model.layers}", layers=config["num_layers"], log_dir="${oc.env:NOT_READ}",
    )  # fmt: skip
    for name in ("plain", "odd"):
        ckptc.convert(tmp_path / name, tmp_path / f"{name}-hf", to="hf")
    assert (tmp_path / "odd-hf/config.json").read_bytes() == (tmp_path / "plain-hf/config.json").read_bytes()
    assert ckptc.plan(odd, to="nemo")


def test_a_size_from_the_environment_is_refused_by_its_key(hf: Path, tmp_path: Path) -> None:
    with pytest.raises(Fault, match=r"ffn_hidden_size.*environment") as error:
        ckptc.plan(said(hf, tmp_path / "odd", ffn_hidden_size="${oc.env:FFN}"), to="hf")
    assert error.value.code == "unresolved-setting"


def test_a_model_taken_out_of_a_training_config_keeps_no_reference_to_it(hf: Path, tmp_path: Path) -> None:
    folder = said(hf, tmp_path / "run")
    config = yaml.safe_load((folder / "model_config.yaml").read_text())
    whole = {"trainer": {"precision": 32}, "model": {**config, "precision": "${trainer.precision}", "ffn_hidden_size": "${multiply:1, ${model.n}}", "n": config["ffn_hidden_size"]}}
    (folder / "model_config.yaml").write_text(yaml.safe_dump(whole))
    ckptc.convert(folder, tmp_path / "out", to="nemo")
    out = yaml.safe_load((tmp_path / "out/model_config.yaml").read_text())
    assert (out["precision"], out["ffn_hidden_size"]) == (32, config["ffn_hidden_size"])


@pytest.mark.parametrize(("tokenizer", "note"), [
    ({"library": "sentencepiece", "model": "nemo:0123456789abcdef0123456789abcdef_gone.model"}, "tokenizer.model is `nemo:0123456789abcdef0123456789abcdef_gone.model`"),
    ({"library": "sentencepiece", "model": "/elsewhere/spm.model"}, "tokenizer.model is `/elsewhere/spm.model`"),
    ({"library": "megatron", "vocab_file": "/elsewhere/v.json", "merge_file": "nemo:m.txt"}, "tokenizer.merge_file is `nemo:m.txt`"),
    ({"library": "sentencepiece", "model": None}, ""),
    ({"library": "sentencepiece", "model": "/elsewhere/tokenizer.model"}, ""),  # NeMo takes a file of that name that is beside it
])  # fmt: skip
@pytest.mark.parametrize("to", ["hf", "megatron-legacy"])
def test_a_tokenizer_that_is_named_and_not_there_gets_a_note(hf: Path, tmp_path: Path, tokenizer: dict[str, Any], note: str, to: str) -> None:
    folder = said(hf, tmp_path / "odd", tokenizer=tokenizer)
    (folder / "tokenizer.model").write_bytes(b"pieces")
    notes = ckptc.plan(folder, to=to).notes
    assert [each for each in notes if note and note in each and "left out" in each] or (not note and not notes)


def test_a_tokenizer_of_huggingface_that_is_only_named_gets_a_note(hf: Path, tmp_path: Path) -> None:
    folder = said(hf, tmp_path / "odd", tokenizer={"library": "huggingface", "type": "some/model", "model": None})
    for file in folder.glob("*tokenizer*"):
        file.unlink()
    assert any("HuggingFace's `some/model`" in note for note in ckptc.plan(folder, to="hf").notes)
