"""Inputs made by hand to do harm: each ends in a diagnostic. No traceback, no code run, no output, at most a gigabyte and ten seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .cases import CASES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ends() -> dict[str, Any]:
    """What became of each case. One interpreter forks for all: a new one for each would take minutes."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.doors"], input="\n".join(CASES), capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return {(said := json.loads(line))["name"]: said for line in done.stdout.splitlines()}


def test_there_are_many() -> None:
    assert len(CASES) >= 150


@pytest.mark.parametrize("name", CASES)
def test_a_hostile_input_ends_in_a_diagnostic(name: str, ends: dict[str, Any]) -> None:
    said = ends[name]
    assert said["kind"] == "diagnostic" or (said["kind"] == "read" and CASES[name].harmless), said.get("text") or said["kind"]
    assert not said["text"].startswith(("error[destination", "error[disk-full"))
    assert not said["canary"], "it ran code"
    assert said["kind"] == "read" or not said["out"], "it left output"
    assert "Traceback" not in said["text"]
