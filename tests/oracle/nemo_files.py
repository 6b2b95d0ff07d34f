"""What the NeMo oracle cases of vision models share: a checkpoint in NeMo's files, and what one holds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

import ckptc

ROOT = Path(__file__).resolve().parents[2]
PLACES = [place / "shared/oracle/nemo" for place in (ROOT, ROOT.parent)]
ORACLE = next((place for place in PLACES if place.is_dir()), PLACES[-1])

Held = dict[tuple[str, str], tuple[tuple[int, ...], str, str]]


def spec(case: str) -> dict[str, Any]:
    return json.loads((ORACLE / case / "expected.json").read_text())


def expected(case: str, step: str = "") -> Held:
    """(file, name) -> (shape, dtype, sha256), of one step where a case has several."""
    out: Held = {}
    for t in spec(case)["tensors"]:
        folder, _, file = t["file"].rpartition("/")
        if folder == step:
            out[file.replace("__", "/") + ".ckpt", t["name"]] = tuple(t["shape"]), t["dtype"], t.get("correct_sha256", t["sha256"])
    return out


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()


def contents(path: Path) -> Held:
    return {(t.file, t.name): (tuple(t.shape), t.dtype, digest(t.read())) for t in ckptc.open(path)}


def unpacked(case: str, folder: Path, config: dict[str, Any]) -> Path:
    """The case's tensors of one rank as NeMo has them, with this configuration."""
    folder.mkdir()
    torch.save(load_file(ORACLE / case / "tp1_model_weights.safetensors"), folder / "model_weights.ckpt")
    (folder / "model_config.yaml").write_text(yaml.safe_dump(config))
    return folder
