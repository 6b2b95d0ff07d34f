"""A few rounds of the soak: one kill after another, over every format, in an interpreter of its own, which forks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .soak import TARGETS, Count, check

ROOT = Path(__file__).resolve().parents[2]


def test_runs_that_are_killed_at_random_moments_end_with_the_bytes_of_an_uninterrupted_run() -> None:
    command = [sys.executable, "-m", "tests.soak.soak", "--rounds", str(len(TARGETS)), "--seconds", "150"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{'all':32} {len(TARGETS):4} rounds" in done.stdout, "it ended early"


@pytest.mark.parametrize("count", [Count(), Count(11, 20, 5, 60), Count(11, 40, 0, 60), Count(11, 40, 5, 10)], ids=["nothing", "few kills", "nothing resumed", "not compared"])
def test_rounds_that_show_nothing_do_not_pass(count: Count) -> None:
    check(Count(11, 40, 5, 60))
    with pytest.raises(AssertionError):
        check(count)
