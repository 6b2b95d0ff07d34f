"""What the face costs to import, and that it has all its names."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ckptc

MOST_TO_CONVERT = 240
ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "numba", "numpy", "lark", "jinja2", "rich.progress", "huggingface_hub", "sentencepiece")


def after(code: str, show: str, exits: int, home: Path | None = None) -> list[str]:
    """What `show` is in a fresh interpreter after running `code`, which must end with this exit code."""
    probe = f"import sys\nbefore, code = {{*sys.modules}}, 0\ntry:\n    {code}\nexcept SystemExit as stop: code = stop.code or 0\nprint('LOADED', code, *{show})"
    env = {**os.environ, "XDG_CACHE_HOME": str(home)} if home else None
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, env=env)
    _, code, *found = done.stdout.splitlines()[-1].split()
    assert int(code) == exits, done.stderr
    return found


def loaded(code: str, exits: int = 0) -> list[str]:
    """Which heavy modules a fresh interpreter has after running `code`."""
    return after(code, f"(m for m in {HEAVY!r} if m in sys.modules)", exits)


def test_importing_ckptc_imports_nothing_heavy() -> None:
    assert loaded("import ckptc") == []


def modules(code: str, home: Path) -> set[str]:
    """All modules that a fresh interpreter has after running `code`, but for those that it begins with."""
    return set(after(code, "({*sys.modules} - before)", 0, home))


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] == "ckptc"}


@pytest.mark.parametrize("arguments", [["--help"], ["convert", "--help"], ["tokenizer", "--help"], ["version"], ["frobnicate"]])
def test_help_and_usage_import_nothing_heavy(arguments: list[str]) -> None:
    assert loaded(f"from ckptc.main import main; main({arguments!r})", 2 if arguments == ["frobnicate"] else 0) == []


def test_a_run_imports_no_more_than_it_uses(llama: Path, tmp_path: Path) -> None:
    """Counts, not times: what a start costs is what it imports. Of the conversion's own modules half a dozen may be added
    before this must be thought about again."""
    convert = ["convert", str(llama.resolve()), str(tmp_path / "out"), "--to", "nxdt", "--tp", "4", "--pp", "2", "--set", "kv_multiplier=2", "-q"]
    most = {"--help": 10, "--version": 8, "list": 48, "convert": MOST_TO_CONVERT}
    for arguments in (["--help"], ["--version"], ["list"], convert):
        code = f"from ckptc.main import main; main({arguments!r})"
        home = tmp_path / "kept"
        modules(code, home)  # what is kept between runs is there from now on
        found = modules(code if arguments != convert else code.replace("'-q'", "'-q', '--overwrite'"), home)
        assert len(ours(found)) <= most[arguments[0]], sorted(ours(found))
        never = {"torch", "numba", "yaml", "rich", "lark", "jinja2", "huggingface_hub", "sentencepiece", "typer", "click", "importlib.metadata", "difflib"}
        assert not found & never
        if arguments == convert:
            assert (tmp_path / "out/model").is_dir()  # it converted, and did not end early
        else:
            assert "numpy" not in found
        if arguments[0].startswith("--"):
            assert not found & {"dataclasses", "inspect", "json", "argparse"}


def test_every_public_name_is_there() -> None:
    assert dir(ckptc) == sorted(ckptc.__all__)
    for name in ckptc.__all__:
        assert getattr(ckptc, name) is not None
    with pytest.raises(AttributeError, match="has no attribute `konvert`"):
        _ = ckptc.konvert


def test_the_version_is_that_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert ckptc.__version__ == project["version"]
