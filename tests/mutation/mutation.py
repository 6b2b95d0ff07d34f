"""`python -m tests.mutation.mutation [--seconds S] [--seed K] [PASS...]`: each pass of the compiler's algebra is broken in one place at a time,
within a time budget, and the compiler's tests must notice.

A mutant that no test notices is printed, and the exit code is 1: it shows that a test is missing, or it is no fault, and then
`equivalent.txt` says why. Mutants are known by what they change and not by lines, so that this file outlives edits elsewhere.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.util import spec_from_file_location
from typing import Any

import hypothesis
import jinja2  # noqa: F401  imported once, before forks
import pytest

import ckptc.dsl.parsing.parse  # noqa: F401

from .mutants import ALGEBRA, PASSES, Mutant, equivalents, mutants

COMPILER = ("boxes", "fuse", "spellings", "golden", "broken_passes", "copies", "negative", "laws", "algebra")  # quick ones first
TESTS = ["tests/plans/test_made_and_omitted.py", *(f"tests/compiler/test_{name}.py" for name in COMPILER)]
UNCONCERNED = [f"--deselect=tests/compiler/test_negative.py::test_{name}" for name in ("a_fault_outside", "every_code", "one_code", "a_message")]
MOST_BYTES = 2 << 30


class Finder(MetaPathFinder):
    """Imports one pass as its mutant."""

    def __init__(self, mutant: Mutant) -> None:
        self.module, self.tree = mutant.name.split(".")[0].split(":")[0], mutant.tree()

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        if name != f"ckptc.compiler.algebra.{self.module}":
            return None
        file = str(ALGEBRA / f"{self.module}.py")
        loader = SourceFileLoader(name, file)
        loader.get_code = lambda _: compile(self.tree, file, "exec")  # type: ignore[method-assign,assignment]
        return spec_from_file_location(name, file, loader=loader)


def outcome(mutant: Mutant | None, seconds: float) -> str:
    """Runs the tests in a child process: `survived`, `killed` or `timed out`."""
    finders = [Finder(mutant)] if mutant else []
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_DATA, (MOST_BYTES, MOST_BYTES))
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        sys.meta_path[:0] = finders
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)  # the smallest example is of no interest
        hypothesis.settings.register_profile("mutation", phases=phases, database=None, report_multiple_bugs=False)
        hypothesis.settings.load_profile("mutation")
        os._exit(pytest.main(["-xq", "-p", "no:cacheprovider", "--hypothesis-seed=0", *UNCONCERNED, *TESTS]))
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return "killed" if status else "survived"
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timed out"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="mutants whose names contain this")
    parser.add_argument("--all", action="store_true", help="say what came of each mutant")
    parser.add_argument("passes", nargs="*", default=PASSES)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = folder  # of all tests: those that are timed out leave something there
        return try_mutants(given)


def try_mutants(given: argparse.Namespace) -> int:
    begin = time.monotonic()
    if outcome(None, 600) != "survived":
        raise SystemExit("the tests fail as it is")
    most = 20 + 1.5 * (time.monotonic() - begin)
    fine = equivalents()
    chosen = [m for name in given.passes for m in mutants(name) if m.name not in fine and given.only in m.name]
    random.Random(given.seed).shuffle(chosen)
    counts = Counter[str]()
    for mutant in chosen:
        if time.monotonic() - begin > given.seconds:
            break
        counts[found := outcome(mutant, most)] += 1
        if found == "survived" or given.all:
            print(f"{found}: {mutant.name}", flush=True)
    print(f"{counts.total()} of {len(chosen)} mutants tried: " + ", ".join(f"{counts[each]} {each}" for each in ("killed", "timed out", "survived")))
    return 1 if counts["survived"] or not counts else 0


if __name__ == "__main__":
    raise SystemExit(main())
