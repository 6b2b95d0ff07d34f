"""The plan of a native command, which a translation asks before it decides on one."""

from __future__ import annotations

from pathlib import Path

import pytest

import ckptc
from ckptc.compat.native import plan_of
from ckptc.usage import UsageError


def test_the_words_are_read_as_the_command_line_reads_them(llama: Path) -> None:
    made = plan_of(["convert", str(llama), "out", "--to=nxdt", "--tensor_model_parallel_size", "2", "--pp", "2", "--stages", "0-0,1-4", "--set", "qkv=fused", "--no-compare-copies", "--resume"])
    same = ckptc.plan(llama, to="nxdt", tp=2, pp=2, stages=[[0], [1, 2, 3, 4]], settings={"qkv": "fused"})
    assert made.data == same.data


def test_what_the_command_line_does_not_know_is_its_own_fault(llama: Path) -> None:
    with pytest.raises(UsageError, match="no such option: --nope"):
        plan_of(["convert", str(llama), "out", "--to", "nxdt", "--nope"])
    with pytest.raises(UsageError, match="missing option '--to'"):
        plan_of(["convert", str(llama), "out"])
