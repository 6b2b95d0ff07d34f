"""Faulty mappings: every fault is found on its line, and reads as its snapshot; CKPTC_REWRITE=1 rewrites these."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ckptc.dsl.render import render

from .case import FILE, Case, cases, faults
from .codes import raised_codes
from .outside import OUTSIDE

HERE = Path(__file__).parent
SNAPSHOTS = HERE / "snapshots"
CASES = [case for path in sorted((HERE / "negative").glob("*.ckmap")) for case in cases(path.read_text())]
CUT = "----\n"


def by_code() -> dict[str, Case]:
    """For each code the first case that is about nothing else, else the first one."""
    out: dict[str, Case] = {}
    for case in sorted(CASES, key=lambda case: len({code for code, _ in case.expected}) > 1):
        for code, _ in case.expected:
            out.setdefault(code, case)
    return out


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title.replace(" ", "-"))
def test_every_fault_is_found_on_its_line(case: Case) -> None:
    found = {(d.code, d.labels[0].span.line if d.labels else 0) for d in faults(case)}
    assert found == case.expected


@pytest.mark.parametrize("code", sorted(by_code()))
def test_a_fault_reads_as_its_snapshot(code: str) -> None:
    case = by_code()[code]
    found = [d for d in faults(case) if d.code == code]
    compare(code, case.text + CUT + render(found, {FILE: case.text}) + "\n")


@pytest.mark.parametrize("code", sorted(OUTSIDE))
def test_a_fault_outside_a_mapping_reads_as_its_snapshot(code: str, tmp_path: Path) -> None:
    found = OUTSIDE[code](tmp_path)
    assert code in {d.code for d in found}
    compare(code, render([d for d in found if d.code == code], {}).replace(str(tmp_path), "DIR") + "\n")


@pytest.mark.parametrize(
    ("names", "said", "more"),
    [("b", "`b`", ""), ("b c", "`b` and `c`", ""), ("b c d e f", "`b`, `c`, `d`, `e` and `f`", ""), ("b c d e f g", "`b`, `c`, `d`, `e`, `f` and `g`", "and 1 more")],
)
def test_tensors_without_a_place_are_counted_up(names: str, said: str, more: str) -> None:
    tensors = "".join(f"  {name} [n]\n" for name in ("a", *names.split()))
    (found,) = faults(Case("", f"# set: n=2\nmodel m {{\n  axes {{ n }}\n{tensors}}}\nlayout one of m {{\n  \"a\" = a [n]\n}}\n"))
    assert found.title == f"layout `one` has no place for {said}"
    assert found.notes == (*(f"{name} [n 2]" for name in names.split()[:5]), *filter(None, [more]))


def compare(code: str, text: str) -> None:
    path = SNAPSHOTS / f"{code}.txt"
    if os.environ.get("CKPTC_REWRITE"):
        path.write_text(text)
    else:
        assert text == path.read_text()


def test_every_code_has_a_test_and_a_snapshot_and_no_snapshot_is_left_over() -> None:
    codes = set(raised_codes())
    assert codes == set(by_code()) | set(OUTSIDE)
    assert codes == {path.stem for path in SNAPSHOTS.glob("*.txt")}


# Codes made in several places, and the one fault that each is about.
SHARED = {
    "unknown-choice": "a parameter is given what it cannot be",
    "bad-call": "a function is given what it does not take",
    "circular-extends": "a model or a layout extends itself",
    "not-text": "a file is not text",
    "misplaced-on": "`on` where no stage is left to be chosen",
    "model-twice": "a model element has two places",
    "no-mapping": "a mapping file is not there",
    "stages-axis": "stages of what is no axis",
    "stages-interleave": "stages interleaved by what is no parameter",
    "stages-rank": "stages over what is no rank",
    "stored-outside": "something is filled where nothing is stored",
    "stored-twice": "a stored element is filled by two things",
    "too-many-elements": "a tensor is larger than any checkpoint",
    "two-labels": "one position is filled by two tensors",
    "stages-beyond": "stages leave out what is no number of indices",
    "undeclared-axis": "a model's tensor has an axis that the model has not",
    "unknown-axis": "an index names no axis",
    "unknown-entry": "a config entry is for no axis or setting",
    "unknown-format": "a format is named that there is not, or not in this layout",
    "unknown-function": "a function is called that there is not",
    "unknown-layout": "a layout is named that there is not",
    "unknown-model": "a model is named that there is not",
    "unknown-name": "an expression names nothing",
    "unknown-parameter": "a setting is given that the layout has no parameter for",
    "unknown-part": "a part is sized that the refinement does not have",
    "unknown-rank": "a slice is by what is no rank",
    "unknown-tensor-name": "a rule names no tensor of the model",
    "unknown-tied": "a tensor is tied to what the model has not",
    "where-axis": "a condition on indices is not about one axis",
}


def test_one_code_is_for_one_kind_of_fault() -> None:
    assert {code for code, places in raised_codes().items() if len(places) > 1} == set(SHARED)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title.replace(" ", "-"))
def test_a_message_says_where_and_what_to_do(case: Case) -> None:
    for d in faults(case):
        assert d.title
        assert not d.title.endswith(".")
        assert "invalid" not in d.title.lower()
        assert "please" not in d.help.lower()
        assert d.help or d.labels
