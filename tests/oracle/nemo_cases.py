"""The oracle's NeMo cases: what goes in, and which tensors with which bytes are right."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from .nxd_cases import contents as contents
from .nxd_cases import digest as digest

ORACLE = Path(__file__).resolve().parents[2].parent / "shared" / "oracle" / "nemo"
Held = tuple[tuple[int, ...], str, str]


@dataclass(frozen=True)
class Case:
    name: str

    @property
    def folder(self) -> Path:
        return ORACLE / self.name

    @cached_property
    def spec(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "expected.json").read_text()))

    @property
    def model(self) -> dict[str, Any]:
        return dict(self.spec["meta"]["model_cfg"])

    def expected(self) -> dict[str, dict[tuple[str, str], Held]]:
        """By step of a partition change: (file, tensor) -> (shape, dtype, hash); the hash that is right where the reference errs."""
        steps: dict[str, dict[tuple[str, str], Held]] = {}
        for t in self.spec["tensors"]:
            step, _, file = t["file"].rpartition("/")
            file = file.replace("__", "/") + ".ckpt"
            steps.setdefault(step, {})[file, t["name"]] = (tuple(t["shape"]), t["dtype"], t.get("correct_sha256") or t["sha256"])
        return steps

    def config(self) -> dict[str, Any]:
        """model_config.yaml of a partition change's model."""
        m = self.model
        return {
            "num_layers": m["L"], "hidden_size": m["H"], "ffn_hidden_size": m["F"], "num_attention_heads": m["NH"],
            "num_query_groups": m["G"], "make_vocab_size_divisible_by": m["div"], "activation": m["act"],
            "share_embeddings_and_output_weights": m["tied"], "bias": m.get("bias", False),
            "normalization": "layernorm" if m.get("lnbias") else "rmsnorm",
            "position_embedding_type": "learned_absolute" if m.get("pos") else "rope",
            "max_position_embeddings": m.get("pos") or 256,
            "tensor_model_parallel_size": 1, "pipeline_model_parallel_size": 1,
        }  # fmt: skip

    def make_source(self, folder: Path, config: dict[str, Any] | None = None) -> Path:
        """The case's input as the folder that a .nemo archive unpacks to. `config` stands in the place of a GPT's."""
        folder.mkdir()
        torch.save(load_file(self.folder / "tp1_model_weights.safetensors"), folder / "model_weights.ckpt")
        (folder / "model_config.yaml").write_text(yaml.safe_dump(config or self.config()))
        return folder


