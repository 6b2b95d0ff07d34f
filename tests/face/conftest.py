"""The demo's checkpoint, small tokenizers, and the command line as a function."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

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
def ckptc(
    request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """Runs one command line in this process. Every `compat` command that a test of compat runs is run as it is printed, too."""
    if not Path.cwd().is_relative_to(tmp_path):
        monkeypatch.chdir(tmp_path)  # the working directory is put back as it was: it must be a folder of the test's own

    def once(*arguments: object) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main([str(a) for a in arguments])
        assert isinstance(stopped.value.code, int)
        return Outcome(stopped.value.code, *capfd.readouterr())

    def run(*arguments: object) -> Outcome:
        if arguments[:1] != ("compat",) or not request.module.__name__.rpartition(".")[2].startswith("test_compat"):
            return once(*arguments)
        with as_it_was(tmp_path) as again:
            done = once(*arguments)
            if done.code == 0:
                again(lambda line: once(*shlex.split(line)[1:]), [line for line in done.out.splitlines() if line.startswith("ckptc ")])
        return done

    return run


@contextmanager
def as_it_was(own: Path) -> Iterator[Callable[[Callable[[str], Outcome], list[str]], None]]:
    """Gives a function that puts the working directory back as it was, runs the lines there, and finds the same files as now.
    It must lie within `own`, the test's own folder, because all in it is removed."""
    here = Path.cwd()
    assert here.is_relative_to(own), f"{here} is not a folder of the test's own"
    with TemporaryDirectory() as held:
        before, after = Path(held) / "before", Path(held) / "after"
        shutil.copytree(here, before, symlinks=True)

        def again(run: Callable[[str], Outcome], lines: list[str]) -> None:
            shutil.copytree(here, after, symlinks=True)
            for each in here.iterdir():
                shutil.rmtree(each) if each.is_dir() and not each.is_symlink() else each.unlink()
            shutil.copytree(before, here, symlinks=True, dirs_exist_ok=True)
            for line in lines:
                done = run(line)
                assert done.code == 0, (line, done.err)
            assert contents(here) == contents(after), lines

        yield again


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder, byte for byte; of a link, where it leads."""
    found = (path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return {path.relative_to(folder).as_posix(): str(path.readlink()).encode() if path.is_symlink() else path.read_bytes() for path in found}


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
