"""NeMo's script that adds special tokens to a SentencePiece model: every run, native and through compat."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

import ckptc as face
from ckptc.main import main
from ckptc.runtime.fault import Fault

ROOT = Path(__file__).resolve().parents[2]
PLACES = [place / "shared/oracle/nemo/sentencepiece_add_tokens" for place in (ROOT, ROOT.parent)]
ORACLE = next((place for place in PLACES if place.is_dir()), PLACES[-1])

if not ORACLE.is_dir():
    pytest.skip(f"no oracle data at {ORACLE}", allow_module_level=True)

RUNS: list[dict[str, Any]] = json.loads((ORACLE / "expected.json").read_text())["runs"]
REFUSED = {
    "again_same_userdefined": "`<extra_id_0>` is already a piece of {}: id 80, user-defined",
    "same_token_other_type": "`<extra_id_0>` is already a piece of {}: id 80, user-defined",
    "dup_in_one_call": "`<x>` is given twice",
    "existing_normal_piece": "`▁b` is already a piece of {}: id 3, normal",
    "existing_unk": "`<unk>` is already a piece of {}: id 0, unknown",
    "existing_s_control": "`<s>` is already a piece of {}: id 1, control",
    "empty_token": "token 1 of 1 is empty",
}
each_run = pytest.mark.parametrize("run", RUNS, ids=lambda run: run["name"])


def test_all_runs_are_here() -> None:
    assert len(RUNS) == 12
    assert {run["name"] for run in RUNS if run["returncode"]} == set(REFUSED)


def check_written(run: dict[str, Any], out: Path) -> None:
    assert out.read_bytes() == (ORACLE / out.name).read_bytes()
    assert hashlib.sha256(out.read_bytes()).hexdigest() == run["output_sha256"]


@each_run
def test_the_bytes_or_the_refusal_are_the_references_own(run: dict[str, Any], tmp_path: Path) -> None:
    source, out = ORACLE / run["input"], tmp_path / f"{run['name']}.model"
    if run["returncode"]:
        with pytest.raises(Fault) as error:
            face.add_special_tokens(source, out, run["tokens"], run["is_userdefined"])
        assert error.value.title == REFUSED[run["name"]].format(source)
        assert not list(tmp_path.iterdir())
    else:
        numbered = face.add_special_tokens(source, out, run["tokens"], run["is_userdefined"])
        assert numbered == [(piece["piece"], piece["id"]) for piece in run["appended"]]
        check_written(run, out)


@each_run
def test_the_scripts_command_runs(run: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    source, out = ORACLE / run["input"], tmp_path / f"{run['name']}.model"
    how = ["--input_file", str(source), "--output_file", str(out), *["--is_userdefined"] * run["is_userdefined"]]
    with pytest.raises(SystemExit) as stopped:
        main(["compat", "scripts/tokenizers/add_special_tokens_to_sentencepiece.py", *how, "--tokens", *run["tokens"]])
    said = capfd.readouterr()
    assert stopped.value.code == run["returncode"], said.err
    if run["returncode"]:
        assert REFUSED[run["name"]].format(source) in said.err
        assert not list(tmp_path.iterdir())
    else:
        check_written(run, out)
        lines = said.out.splitlines()
        assert lines[0].startswith("ckptc tokenizer add-special-tokens --input-file ")
        assert lines[1:-1] == [f"{piece['piece']}  {piece['id']}" for piece in run["appended"]]
        assert lines[-1] == f"New tokenizer vocab size: {run['piece_size']}"
