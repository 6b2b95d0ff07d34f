"""Inputs made by hand to do harm: each ends in the diagnostic that is meant for it. No traceback, no code run, no output, at most a gigabyte and ten seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .cases import CASES
from .reasons import REASONS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def ends() -> dict[str, Any]:
    """What became of each case. One interpreter forks for all: a new one for each would take minutes."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.hostile.doors"], input="\n".join(CASES), capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr
    return {(said := json.loads(line))["name"]: said for line in done.stdout.splitlines()}


def test_there_are_many_and_each_has_its_reason() -> None:
    assert len(CASES) >= 350
    assert list(REASONS) == list(CASES)
    assert all(REASONS.values())


@pytest.mark.parametrize("name", list(CASES))
def test_a_hostile_input_ends_in_the_diagnostic_that_is_meant(name: str, ends: dict[str, Any]) -> None:
    said = ends[name]
    code, _, words = REASONS[name].partition(": ")
    assert said["kind"] == ("read" if code == "read" else "diagnostic"), said.get("text") or said["kind"]
    assert code == "read" or said["code"] == code, said["text"]
    assert words in said["title"], said["text"]
    assert not said["canary"], "it ran code"
    assert code == "read" or not said["out"], "it left output"
    assert "Traceback" not in said["text"]
