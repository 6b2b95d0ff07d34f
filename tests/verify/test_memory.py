"""Verifying takes a fixed amount of memory, however large the tensors are, also where they differ and are explained."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from .plain import Model

MODEL = Model(hidden=1024, ffn=12_288, groups=2, share=2, dim=128)
PROGRAM = """
import json, resource, sys
import ckptc
small, source, result, to = sys.argv[1:]
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
warm = ckptc.verify(small, small, memory="16MiB")
before = peak()
found = ckptc.verify(source, result, memory="16MiB", to=to)
print(json.dumps({"grown": peak() - before, "same": found.same, "equal": found.equal, "different": found.different, "said": [d.explanation for d in found.differences]}))
"""


def write(folder: Path, weights: dict[str, torch.Tensor], config: dict[str, object]) -> Path:
    folder.mkdir()
    save_file(weights, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, torch.Tensor]]:
    at = tmp_path_factory.mktemp("large")
    small = Model()
    weights = {n: x.clone() for n, x in MODEL.weights().items()}
    return write(at / "small", small.weights(), small.config()), write(at / "source", weights, MODEL.config()), weights


def measured(*arguments: object) -> dict[str, object]:
    done = subprocess.run([sys.executable, "-c", PROGRAM, *map(str, arguments)], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_peak_memory_is_bounded_and_less_than_one_tensor_of_many(sources: tuple[Path, Path, dict[str, torch.Tensor]], tmp_path: Path) -> None:
    """Each feed-forward weight has 25 MB, all together 340 MB; the budget is 16 MiB."""
    import ckptc

    small, source, weights = sources
    whole = sum(x.numel() for x in weights.values())
    ckptc.convert(source, tmp_path / "megatron", to="megatron-legacy")
    equal = measured(small, source, tmp_path / "megatron", "megatron-legacy")
    assert equal["same"] is True
    assert equal["equal"] == whole
    assert equal["grown"] < 48 << 20  # type: ignore[operator]
    name = "model.layers.1.mlp.up_proj.weight"
    spoilt = weights | {name: weights[name].flip(0).contiguous()}
    wrong = measured(small, source, write(tmp_path / "wrong", spoilt, MODEL.config()), "hf")
    assert wrong["same"] is False
    assert wrong["equal"] + wrong["different"] == whole  # type: ignore[operator]
    assert "rows are in reverse order" in wrong["said"][0]  # type: ignore[index]
    assert wrong["grown"] < 48 << 20  # type: ignore[operator]
