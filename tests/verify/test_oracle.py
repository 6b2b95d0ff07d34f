"""Checkpoints that the frameworks' own code made, held against each other and against what they were made from."""

from __future__ import annotations

from pathlib import Path

import pytest

import ckptc
from tests.oracle.megatron_cases import MEGATRON, folders
from tests.oracle.nxd_cases import ORACLE as NXD

TWINS = {"bfloat16": MEGATRON / "hf_v0.20dev_dense_tp1", "float32": MEGATRON / "hf_v0.20dev_dense_tp1_fp32"}
# Values hang on names, so the twin is not one of what has other names.
DENSE = [p for kind in ("torch_dist", "zarr", "own_writer", "legacy") for p in folders(kind) if not any(w in str(p.id) for w in ("moe", "perlayer"))]
BACK = sorted(path.name for path in NXD.glob("[abc]*__back")) if NXD.is_dir() else []
pytestmark = pytest.mark.skipif(not MEGATRON.is_dir(), reason=f"no oracle data: {MEGATRON} is absent")


@pytest.mark.parametrize("path", DENSE)
def test_megatrons_checkpoints_hold_what_their_twin_holds(path: Path) -> None:
    twin = TWINS["float32" if "fp32" in path.name else "bfloat16"]
    there, back = ckptc.verify(twin, path), ckptc.verify(path, twin)
    assert there.same, str(there)
    assert back.same, str(back)
    assert there.equal == back.equal == 193_088


@pytest.mark.skipif(not BACK, reason="no oracle data of NxD")
def test_what_the_reference_read_is_what_it_wrote_from(tmp_path: Path) -> None:
    """Rank files that the framework's own converter wrote, held against the HuggingFace files that they were made from."""
    from tests.oracle.test_nxd_llama import ALL, RIGHT, settings, twin

    held = 0
    for name in RIGHT:
        case = ALL[name]
        if case.forward or name not in BACK or not (original := twin(case).folder / "in/pytorch_model.bin").exists():
            continue
        said = {n: v for n, v in settings(case).items() if n != "qkv"}
        found = ckptc.verify(original, case.folder / "in/model", config=case.folder / "in/config.json", settings=said)
        assert found.same, f"{name}: {found}"
        held += 1
    assert held >= 20
