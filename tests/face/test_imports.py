"""What the face costs to import, and that it has all its names."""

from __future__ import annotations

import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import ckptc

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "numba", "numpy", "lark", "jinja2", "rich.progress", "huggingface_hub", "sentencepiece")


def loaded(code: str) -> list[str]:
    """Which heavy modules a fresh interpreter has after running `code`."""
    probe = f"import sys\ntry:\n    {code}\nexcept SystemExit: pass\nprint('LOADED', *(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1].split()[1:]


def test_importing_ckptc_imports_nothing_heavy() -> None:
    assert loaded("import ckptc") == []


def test_importing_ckptc_does_not_even_import_typer() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import ckptc, sys; print('typer' in sys.modules)"], capture_output=True, text=True
    )
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("arguments", [["--help"], ["convert", "--help"], ["tokenizer", "--help"], ["version"], ["frobnicate"]])
def test_help_and_usage_import_nothing_heavy(arguments: list[str]) -> None:
    assert loaded(f"from ckptc.main import main; main({arguments!r})") == []


def test_help_is_quick() -> None:
    def seconds() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "ckptc", "--help"], capture_output=True, check=True)
        return time.perf_counter() - began

    assert min(seconds() for _ in range(3)) < 1.0


def test_every_public_name_is_there() -> None:
    assert dir(ckptc) == sorted(ckptc.__all__)
    for name in ckptc.__all__:
        assert getattr(ckptc, name) is not None
    with pytest.raises(AttributeError, match="has no attribute `konvert`"):
        _ = ckptc.konvert


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert ckptc.__version__ == project["version"]
