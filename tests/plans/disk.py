"""Made mappings on disk: the reference's contents as checkpoint files, and files back as contents."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from ckptc.compiler.settle.resolve import Side

Contents = dict[tuple[str, str], tuple[tuple[int, ...], list[int | None]]]
JUNK = 9999  # in the source's padding: no target may have it


def contained(side: Side, loose: str) -> Side:
    """Rank files are torch files; where the layout leaves the files to the container, `loose` is it."""
    return replace(side, format="pt" if side.files else loose)


def write(folder: Path, side: Side, contents: Contents, dtype: torch.dtype) -> Path:
    """Element number n is stored as n + 1, padding as junk."""
    files: dict[str, dict[str, torch.Tensor]] = defaultdict(dict)
    for (file, name), (shape, held) in contents.items():
        values = [JUNK if x is None else x + 1 for x in held]
        files[file or ("model.safetensors" if side.format == "safetensors" else "pytorch_model.bin")][name] = torch.tensor(values, dtype=dtype).reshape(shape)
    for file, tensors in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        if file.endswith(".safetensors"):
            save_file(tensors, folder / file)
        else:
            torch.save(tensors, folder / file)
    return folder


def read(folder: Path, side: Side) -> Contents:
    """Every tensor below `folder`, through safetensors or torch; zero is padding."""
    out: Contents = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
        file = path.relative_to(folder).as_posix() if side.files else ""
        for name, tensor in tensors.items():
            out[file, name] = (tuple(tensor.shape), [int(x) - 1 if x else None for x in tensor.flatten().tolist()])
    return out
