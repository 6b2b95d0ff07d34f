"""FP8 checkpoints that are made, and beside each the same model with its weights as torch decodes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

BLOCK = (7, 5)
Weights = dict[str, torch.Tensor]
Scheme = Callable[[str, torch.Tensor, torch.Generator], Weights]


def codes(shape: torch.Size, generator: torch.Generator, dtype: torch.dtype = torch.float8_e4m3fn) -> torch.Tensor:
    """Random numbers of an eight-bit type; no NaN."""
    found = torch.randint(0, 256, shape, generator=generator).to(torch.uint8).view(dtype)
    return torch.where(found.float().isfinite(), found.view(torch.uint8), 3).view(dtype)


def spread(scales: torch.Tensor, shape: torch.Size, block: tuple[int, ...]) -> torch.Tensor:
    """A scale for each element, from one for each block; the last blocks may be shorter."""
    for axis, (extent, n) in enumerate(zip(shape, block, strict=True)):
        scales = scales.repeat_interleave(n, axis).narrow(axis, 0, extent)
    return scales


def grid(shape: torch.Size, block: tuple[int, ...]) -> list[int]:
    return [-(-extent // n) for extent, n in zip(shape, block, strict=True)]


def blocks(name: str, weight: torch.Tensor, generator: torch.Generator) -> Weights:
    """As DeepSeek-V3 is stored: inference/fp8_cast_bf16.py reads `weight_scale_inv` of ceil(rows / 128) x ceil(columns / 128)."""
    scales = torch.randn(grid(weight.shape, BLOCK), generator=generator)
    return {name: codes(weight.shape, generator), f"{name}_scale_inv": scales}


def scaled(plain: Path, folder: Path, scheme: Scheme = blocks, dtype: torch.dtype = torch.bfloat16, left_out: tuple[str, ...] = (), **said: object) -> Path:
    """`folder` with the linear weights of `plain` in FP8, but for names that contain one of `left_out`, in two files: weights and scales.
    Returns another folder, with what they mean in `dtype`: torch's own float8 to float32, times the scale, rounded once."""
    meant = folder.with_name(folder.name + "-meant")
    generator = torch.Generator().manual_seed(11)
    weights: Weights = {}
    scales: Weights = {}
    decoded: Weights = {}
    for file in sorted(plain.glob("*.safetensors")):
        for name, weight in load_file(file).items():
            weights[name], decoded[name] = weight, weight
            if not name.endswith("_proj.weight") or any(part in name for part in left_out):
                continue
            made = scheme(name, weight, generator)
            weights[name] = made.pop(name)
            (scale,) = [tensor.float() for key, tensor in made.items() if "_scale" in key]
            if scale.numel() > 1:
                scale = scale.reshape(-1, 1) if scale.ndim == 1 else scale
                block = BLOCK if list(scale.shape) == grid(weight.shape, BLOCK) else (1, weight.shape[1])
                scale = spread(scale, weight.shape, block)
            decoded[name] = (weights[name].float() * scale).to(dtype)
            scales |= made
    write(folder, plain, {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": list(BLOCK), **said}, weights, scales)
    write(meant, plain, None, decoded)
    return meant


def write(folder: Path, plain: Path, said: dict[str, object] | None, *files: Weights) -> None:
    """A checkpoint of these files with the config of `plain`, and what is `said` there of its quantization."""
    folder.mkdir()
    for number, held in enumerate(files, 1):
        save_file(held, folder / (f"model-{number:05}-of-{len(files):05}.safetensors" if len(files) > 1 else "model.safetensors"))
    config = json.loads((plain / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config if said is None else config | {"quantization_config": said}))
