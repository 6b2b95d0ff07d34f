"""A few rounds of the soak: one kill after another, over every format, in an interpreter of its own, which forks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from .soak import TARGETS

ROOT = Path(__file__).resolve().parents[2]


def test_runs_that_are_killed_at_random_moments_end_with_the_bytes_of_an_uninterrupted_run() -> None:
    command = [sys.executable, "-m", "tests.soak.soak", "--rounds", str(len(TARGETS)), "--seconds", "60"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    total = done.stdout.splitlines()[-1].split()
    assert total[0] == "all"
    assert int(total[3]) > 0, "nothing was killed"
