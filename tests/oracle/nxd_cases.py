"""The NxD oracle cases as data: what was run, on what, and what came out."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import ckptc

ORACLE = Path(__file__).resolve().parents[2].parent / "shared" / "oracle" / "nxd"


@dataclass(frozen=True)
class Case:
    folder: Path

    @cached_property
    def spec(self) -> dict[str, Any]:
        return json.loads((self.folder / "case.json").read_text())

    @cached_property
    def args(self) -> dict[str, str]:
        """The reference's options by name; a bare flag is an empty string."""
        out: dict[str, str] = {}
        name = ""
        for word in self.spec["argv"]:
            if word.startswith("--"):
                name = word[2:]
                out[name] = ""
            else:
                out[name] = word
        return out

    @cached_property
    def expected(self) -> dict[tuple[str, str], tuple[tuple[int, ...], str, str]]:
        """(file, name) -> (shape, dtype, sha256)."""
        tensors = json.loads((self.folder / "expected.json").read_text())["tensors"]
        return {(t["file"], t["name"]): (tuple(t["shape"]), t["dtype"], t["sha256"]) for t in tensors}

    @cached_property
    def input(self) -> dict[tuple[str, str], tuple[tuple[int, ...], str, str]]:
        tensors = json.loads((self.folder / "input.json").read_text())["tensors"]
        return {(t["file"], t["name"]): (tuple(t["shape"]), t["dtype"], t["sha256"]) for t in tensors}

    def flag(self, name: str) -> bool:
        """As the reference reads it: any non-empty text is true."""
        return bool(self.args.get(name))

    def number(self, name: str, default: int = 1) -> int:
        return int(self.args.get(name) or default)

    @property
    def forward(self) -> bool:
        return "convert_from_full_state" in self.args


def contents(path: Path) -> dict[tuple[str, str], tuple[tuple[int, ...], str, str]]:
    """What a written checkpoint holds, in the form of `Case.expected`."""
    return {
        (t.file, t.name): (tuple(t.shape), t.dtype, digest(t.read())) for t in ckptc.open(path)
    }


def digest(tensor: Any) -> str:
    import torch

    flat = tensor.contiguous().reshape(-1)
    return hashlib.sha256(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"").hexdigest()


def back(source: Path, case: Case, out: Path, **settings: object) -> dict[str, tuple[tuple[int, ...], str, str]]:
    """What a conversion to HuggingFace with these settings of the source holds, by tensor."""
    ckptc.plan(source, to="hf", config=case.folder / "in/config.json", from_settings=settings).run(out)
    return {name: held for (_, name), held in contents(out).items()}
