"""A tokenizer that is named and does not serve: said before anything is read, fetched or written."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

import ckptc as face
from ckptc.runtime.fault import Fault
from tests.face.conftest import Outcome

JSON, TIKTOKEN, POINTER = b'{"a": 1}', b"IQ== 0\nIg== 1\n", b"version https://git-lfs.github.com/spec/v1\n"


def tar() -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model_config.yaml"))
    return held.getvalue()


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    for name, content in {"words.json": JSON, "ranks.model": TIKTOKEN, "pointer.model": POINTER, "a.nemo": tar(), "none.model": b""}.items():
        Path(name).write_bytes(content)


NO_MODEL = [
    ("words.json", "bad-model", "words.json is not a SentencePiece model but JSON"),
    ("ranks.model", "bad-model", "ranks.model is not a SentencePiece model but tiktoken's ranks"),
    ("pointer.model", "bad-model", "pointer.model is not a SentencePiece model but a pointer of git-lfs"),
    ("none.model", "bad-model", "none.model is not a SentencePiece model but an empty file"),
    ("nowhere", "no-file", "there is no file `nowhere`"),
]


@pytest.mark.parametrize("to", ["nemo", "nemo2", "nemo-legacy"])
@pytest.mark.parametrize(
    ("given", "code", "title"), [*NO_MODEL, ("a.nemo", "bad-model", "a.nemo is not a SentencePiece model but an archive"), ("empty", "no-file", "the folder empty holds no tokenizer")]
)
def test_for_nemo_it_is_said_before_the_source_is_looked_at(given: str, code: str, title: str, to: str, ckptc: Callable[..., Outcome]) -> None:
    """The source is a repository of a hub that is not reached."""
    with pytest.raises(Fault) as fault:
        face.plan("hf://org/name", to=to, tokenizer=given)
    assert (fault.value.code, fault.value.title[: len(title)]) == (code, title)
    done = ckptc("convert", "hf://org/name", "out", "--to", to, "--tokenizer", given)
    assert done.code == 1
    assert done.err.startswith(f"error[{code}]: {title}")


@pytest.mark.parametrize("to", ["hf", "nxdt", "megatron"])
def test_for_another_framework_it_is_refused_before_the_source_is_looked_at(to: str) -> None:
    with pytest.raises(Fault, match="is none of NeMo's"):
        face.plan("hf://org/name", to=to, tokenizer="nowhere")


def test_nemo_2_does_not_fetch_one_from_the_hub() -> None:
    with pytest.raises(Fault, match="there is no file `org/tokenizer`"):
        face.plan("hf://org/name", to="nemo2", tokenizer="org/tokenizer")


@pytest.mark.parametrize(("given", "code", "title"), [*NO_MODEL, ("empty", "no-file", "the folder empty holds no tokenizer.model"), ("b.nemo", "no-checkpoint", "`b.nemo` does not exist")])
def test_to_hf_writes_nothing(given: str, code: str, title: str, ckptc: Callable[..., Outcome]) -> None:
    before = sorted(os.listdir())
    done = ckptc("tokenizer", "to-hf", given, "out")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"error[{code}]: {title}")
    assert sorted(os.listdir()) == before


def test_to_hf_writes_to_a_folder(bpe: bytes, ckptc: Callable[..., Outcome]) -> None:
    Path("file").touch()
    done = ckptc("tokenizer", "to-hf", "in.model", "file")
    assert (done.code, done.err) == (1, "error[destination-exists]: file is a file, and a folder is written to\n  = help: name a folder\n")
    assert ckptc("tokenizer", "to-hf", "in.model", "made/here").code == 0
    assert Path("made/here/tokenizer.model").read_bytes() == bpe
