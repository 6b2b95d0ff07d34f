"""NeMo's ViT: a change of tensor parallel ranks is hash-equal to the reference's, there and back."""

from __future__ import annotations

from pathlib import Path

import pytest

import ckptc

from .nemo_files import ORACLE, contents, expected, spec, unpacked

if not ORACLE.is_dir():
    pytest.skip(f"no oracle data at {ORACLE}", allow_module_level=True)

CASE = "vit_pretrain_head_tp_change"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    m = spec(CASE)["meta"]["model_cfg"]
    config = {
        "num_layers": m["L"], "hidden_size": m["H"], "ffn_hidden_size": m["F"], "num_attention_heads": 4,
        "class_token_length": m["cls"], "patch_dim": 4, "num_channels": 3, "img_h": 16, "img_w": 16, "num_classes": m["C"],
        "activation": m["act"],
    }  # fmt: skip
    return unpacked(CASE, tmp_path / "source", config)


def test_the_case_is_whole() -> None:
    steps = {t["file"].split("/")[0] for t in spec(CASE)["tensors"]}
    assert steps == {"tp1to2", "tp2to1"}


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_a_change_of_ranks_is_the_references_own(source: Path, tmp_path: Path, before: int, after: int) -> None:
    if before > 1:
        ckptc.plan(source, to="nemo", tp=before).run(tmp_path / "before")
        source = tmp_path / "before"
    ckptc.plan(source, to="nemo", tp=after).run(tmp_path / "after")
    assert contents(tmp_path / "after") == expected(CASE, f"tp{before}to{after}")


def test_an_archive_holds_the_same(source: Path, tmp_path: Path) -> None:
    ckptc.plan(source, to="nemo", tp=2).run(tmp_path / "vit.nemo")
    assert contents(tmp_path / "vit.nemo") == expected(CASE, "tp1to2")
