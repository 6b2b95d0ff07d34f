"""Every input of the reference converters opens, and each tensor has the bytes that were recorded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ckptc.runtime.checkpoint.checkpoint import open_checkpoint
from ckptc.runtime.fault import Fault

ORACLE = Path(__file__).resolve().parents[4] / "shared" / "oracle" / "nxd"
CASES = sorted(path.parent.name for path in ORACLE.glob("*/input.json"))


@pytest.mark.skipif(not CASES, reason=f"there is no oracle data at {ORACLE}")
def test_the_oracle_data_has_cases():
    assert len(CASES) > 100


@pytest.mark.parametrize("case", CASES)
def test_each_tensor_of_a_reference_input_has_its_recorded_bytes(case, digest):
    root = ORACLE / case / "in"
    recorded: dict[str, dict[str, dict]] = {}
    for tensor in json.loads((ORACLE / case / "input.json").read_text())["tensors"]:
        recorded.setdefault(tensor["file"], {})[tensor["name"]] = tensor
    assert recorded
    for file, tensors in recorded.items():
        opened = open_checkpoint_or_none(root / file)
        if opened is None:
            continue
        for tensor in opened:
            if tensor.name not in tensors:  # a wrapper's name is part of the recorded one
                tensors = {name.removeprefix("model.").removeprefix("state_dict."): t for name, t in tensors.items()}
            right = tensors[tensor.name]
            assert (list(tensor.shape), tensor.dtype) == (right["shape"], right["dtype"])
            assert digest(tensor.read()) == right["sha256"]
        assert len(opened) == len(tensors)


def open_checkpoint_or_none(path: Path):
    try:
        return open_checkpoint(path)
    except Fault as fault:
        if fault.code != "xser-not-supported":
            raise
        return None


@pytest.mark.parametrize("case", CASES)
def test_a_reference_input_opens_as_a_folder(case):
    for root in [ORACLE / case / "in", *(ORACLE / case / "in").glob("*.ckpt")]:
        if list(root.glob("*.ckpt/model")) or (root / "optim").is_dir():
            continue
        opened = open_checkpoint_or_none(root)
        assert opened is None or len(opened) > 0
