"""The fuzzer's seeds, and a few seconds of it, in an interpreter of its own, which forks."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import ckptc

from .fuzz import Target, read_seeds, targets

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def known() -> dict[str, Target]:
    return targets()


def test_each_target_reads_its_seeds_as_they_are(known: dict[str, Target]) -> None:
    """Mutations of what is refused at once would never come far."""
    assert len(known) == 13
    for target in known.values():
        assert target.seeds
        read_seeds(target)
    assert len(known["mapping"].seeds) >= 15


def test_a_seed_that_is_refused_stops_the_fuzzer(known: dict[str, Target]) -> None:
    with pytest.raises(ckptc.MappingError):
        read_seeds(replace(known["mapping"], seeds=[b"model m {"]))
    with pytest.raises(ckptc.Fault):
        read_seeds(replace(known["pickle"], seeds=list(known["pickle"].odd)))


def test_mutated_inputs_are_read_or_end_in_a_diagnostic(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.fuzz.fuzz", "--seconds", "13", "--keep", str(tmp_path / "findings")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = [int(count) for count in re.findall(r"(\d+) inputs", done.stdout)]
    assert len(counts) == 13
    assert all(counts)
