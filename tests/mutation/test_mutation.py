"""The mutants: which there are, that they are other modules, and that those said to be no faults exist."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from .mutants import ALGEBRA, PASSES, changes, equivalents, mutants
from .mutation import TESTS

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a < b", ["a <= b"]), ("a <= b < c", ["a < b < c", "a <= b <= c"]), ("a is None", ["a is not None"]), ("a + b", ["a - b"]), ("a | b", []),
        ("a and b", ["a or b"]), ("not a", ["a"]), ("-a", ["a"]), ("1", ["2", "0"]), ("4096", []), ("True", ["False"]), ("min", ["max"]), ("'text'", []),
    ],
)  # fmt: skip
def test_what_may_stand_in_the_place_of_an_expression(text: str, expected: list[str]) -> None:
    assert [ast.unparse(each) for each in changes(ast.parse(text, mode="eval").body)] == expected


@pytest.mark.parametrize(
    ("text", "dropped"),
    [("return a", True), ("raise a", True), ("continue", True), ("a += b", True), ("a[0] = b", True), ("f(a)", True), ("yield a", True), ("'a docstring'", False), ("a = b", False)],
)
def test_which_statements_are_dropped(text: str, dropped: bool) -> None:
    assert [ast.unparse(each) for each in changes(ast.parse(text).body[0])] == ["pass"] * dropped


@pytest.mark.parametrize("name", PASSES)
def test_each_mutant_has_a_name_of_its_own_and_is_another_module(name: str) -> None:
    found = mutants(name)
    assert len(found) == len({mutant.name for mutant in found}) > 50
    for mutant in found[::20]:
        assert ast.dump(mutant.tree()) != ast.dump(ast.parse((ALGEBRA / f"{name}.py").read_text()))
        compile(mutant.tree(), name, "exec")


def test_what_is_said_to_be_no_fault_is_a_mutant_and_has_a_reason() -> None:
    names = {mutant.name for name in PASSES for mutant in mutants(name)}
    assert set(equivalents()) <= names
    assert all(len(reason.split()) > 3 for reason in equivalents().values())


def test_the_tests_of_the_compiler_are_there() -> None:
    assert all((ROOT / test).is_file() for test in TESTS)


def test_a_mutant_is_imported_in_the_place_of_the_pass() -> None:
    program = """
import sys
from tests.mutation.mutants import mutants
from tests.mutation.mutation import Finder
(mutant,) = [each for each in mutants("digits") if each.name == "digits.added: x + y -> x - y"]
sys.meta_path.insert(0, Finder(mutant))
from ckptc.compiler.algebra.digits import added
assert added((5,), (3,)) == (2,)
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
