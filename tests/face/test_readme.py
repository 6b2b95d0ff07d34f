"""Every command and every Python block of the README and of docs/ runs, and prints what is shown under it."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(\w+)(?: +(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Each `$ command` of a console block, and the lines that are shown under it."""
    out: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            out.append((line[2:], []))
        else:
            out[-1][1].append(line)
    return out


def check_shown(shown: list[str], printed: str) -> None:
    """The shown lines stand in the output one after the other; `...` skips lines."""
    lines, at, skipping = printed.splitlines(), 0, False
    for line in shown:
        if line == "...":
            skipping = True
            continue
        if skipping:
            assert line in lines[at:], f"{line!r} is not printed"
            at = lines.index(line, at)
        assert at < len(lines), f"{line!r} is not printed"
        assert lines[at] == line
        at, skipping = at + 1, False


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_what_a_page_shows_is_what_happens(page: Path, made_llama: Path, tmp_path: Path) -> None:
    shutil.copytree(made_llama, tmp_path / "demo" / "llama-hf")
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    ran = 0
    for kind, name, text in BLOCK.findall(page.read_text()):
        if name:
            (tmp_path / name).write_text(text)
        elif kind == "python":
            done = subprocess.run([sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            ran += 1
        elif kind == "console":
            for command, shown in commands(text):
                program, *arguments = shlex.split(command)
                if program == "make":
                    assert set(arguments) <= targets
                    continue
                assert program == "ckptc", command
                done = subprocess.run(
                    [sys.executable, "-m", "ckptc", *arguments], cwd=tmp_path, capture_output=True, text=True
                )
                assert done.returncode == 0, f"{command}\n{done.stderr}"
                check_shown(shown, done.stdout)
                ran += 1
    assert ran or page.parent.name == "docs"
