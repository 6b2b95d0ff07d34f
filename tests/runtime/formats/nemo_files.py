"""Small .nemo archives, whole and broken, made by the standard library and torch alone."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch

CONFIG = "hidden_size: 16\ntokenizer:\n  library: sentencepiece\n  model: nemo:0123456789abcdef0123456789abcdef_tok.model\n"
ARTIFACT = "0123456789abcdef0123456789abcdef_tok.model"


def saved(**tensors: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    torch.save(dict(tensors), buffer)
    return buffer.getvalue()


def contents(ranks: tuple[str, ...] = ("",)) -> dict[str, bytes]:
    """What NeMo packs; tensors differ from rank to rank."""
    made = {ARTIFACT: b"pieces" * 300, "model_config.yaml": CONFIG.encode()}
    for number, rank in enumerate(ranks):
        name = f"{rank}/model_weights.ckpt" if rank else "model_weights.ckpt"
        made[name] = saved(w=torch.arange(15.0).reshape(3, 5) + number, b=torch.full((7,), number, dtype=torch.bfloat16))
    return made


def pack(
    path: Path, members: Mapping[str, bytes], *, prefix: str = "./", format: int = tarfile.PAX_FORMAT, mode: str = "w",
    change: Callable[[tarfile.TarInfo], object] = lambda info: None,
) -> Path:  # fmt: skip
    with tarfile.open(path, mode, format=format) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(data)
            change(info)
            archive.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return path
