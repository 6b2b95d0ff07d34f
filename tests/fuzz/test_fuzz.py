"""A few seconds of the fuzzer, in an interpreter of its own, which forks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_mutated_inputs_are_read_or_end_in_a_diagnostic(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.fuzz", "--seconds", "13", "--keep", str(tmp_path / "findings")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = [int(count) for count in re.findall(r"(\d+) inputs", done.stdout)]
    assert len(counts) == 13
    assert all(counts)
