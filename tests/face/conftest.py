"""The demo's checkpoint, small tokenizers, and the command line as a function."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ckptc.demo import write_llama
from ckptc.main import main
from tests.face.sentencepiece_models import KINDS, trained


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def made_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "llama-hf"
    write_llama(folder)
    return folder


@pytest.fixture
def llama(made_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`llama-hf`, in a folder of the test's own that is the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "llama-hf").symlink_to(made_llama)
    return Path("llama-hf")


@pytest.fixture
def ckptc(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs one command line in this process."""

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        assert isinstance(stopped.value.code, int)
        return Outcome(stopped.value.code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def models() -> dict[str, bytes]:
    """A small SentencePiece model of each kind."""
    return {kind: trained(kind, 15 if kind == "word" else 40) for kind in KINDS}


@pytest.fixture
def bpe(models: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """The bytes of in.model, in a folder of the test's own that is the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("in.model").write_bytes(models["bpe"])
    return models["bpe"]
