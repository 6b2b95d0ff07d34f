"""Weights of four bits as they are published, and what they mean: torch's own arithmetic, one number at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file

from .scaled_weights import Weights, write

# OCP Microscaling Formats, 5.3.3: a sign, two bits of exponent, one of fraction.
E2M1 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0])


@dataclass(frozen=True)
class Packed:
    """The tensors of a weight as they are stored, and what it is in float32."""

    stored: Weights
    meant: torch.Tensor


PackedScheme = Callable[[str, tuple[int, ...], torch.Generator], Packed]


def random_bytes(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=generator).to(torch.uint8)


def nibbles(packed: torch.Tensor) -> torch.Tensor:
    """Two codes of each byte, the lower first."""
    return torch.stack((packed & 15, packed >> 4), dim=-1).flatten(-2).long()


def powers(exponents: torch.Tensor) -> torch.Tensor:
    return torch.ldexp(torch.ones(exponents.shape, dtype=torch.float64), exponents.int() - 127)


def gpt_oss(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Packed:
    """`shape` is [experts, in, out], which is stored as [experts, out, in]."""
    experts, inner, outer = shape
    blocks, scales = random_bytes((experts, outer, inner // 32, 16), generator), torch.randint(100, 140, (experts, outer, inner // 32), generator=generator).to(torch.uint8)
    meant = (E2M1[nibbles(blocks)].double() * powers(scales)[..., None]).flatten(-2).float()
    return Packed({f"{name}_blocks": blocks, f"{name}_scales": scales}, meant.transpose(1, 2).contiguous())


def nvfp4(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Packed:
    """compressed-tensors: the scale is divided by another."""
    packed, scales = random_bytes((*shape[:-1], shape[-1] // 2), generator), random_scales((*shape[:-1], shape[-1] // 16), generator)
    whole = torch.rand(1, generator=generator) * 1000 + 1
    meant = E2M1[nibbles(packed)] * (scales.float() / whole).repeat_interleave(16, -1)
    return Packed({f"{name}_packed": packed, f"{name}_scale": scales, f"{name}_global_scale": whole}, meant)


def modelopt(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Packed:
    """NVIDIA's Model Optimizer: the scale is multiplied by another."""
    packed, scales = random_bytes((*shape[:-1], shape[-1] // 2), generator), random_scales((*shape[:-1], shape[-1] // 16), generator)
    whole = torch.rand((), generator=generator) / 1000
    meant = E2M1[nibbles(packed)] * (scales.float() * whole).repeat_interleave(16, -1)
    return Packed({name: packed, f"{name}_scale": scales, f"{name}_scale_2": whole}, meant)


def mxfp4(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Packed:
    """compressed-tensors: exponents, 32 numbers to each."""
    packed, scales = random_bytes((*shape[:-1], shape[-1] // 2), generator), torch.randint(90, 150, (*shape[:-1], shape[-1] // 32), generator=generator).to(torch.uint8)
    meant = (E2M1[nibbles(packed)].double() * powers(scales).repeat_interleave(32, -1)).float()
    return Packed({f"{name}_packed": packed, f"{name}_scale": scales}, meant)


def random_scales(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Positive e4m3; no NaN."""
    return torch.randint(1, 127, shape, generator=generator).to(torch.uint8).view(torch.float8_e4m3fn)


def integers(group: int = 32, dtype: torch.dtype = torch.bfloat16, bits: int = 4, shape_dtype: torch.dtype = torch.int64) -> PackedScheme:
    """compressed-tensors' `pack-quantized`, as Kimi-K2-Thinking is stored; a group of 0 is a row."""

    def made(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Packed:
        *before, columns = shape
        codes = torch.randint(0, 1 << bits, shape, generator=generator)
        per = 32 // bits
        padded = torch.nn.functional.pad(codes, (0, -columns % per)).reshape(*before, -1, per)
        words = (padded << (torch.arange(per) * bits)).sum(-1)  # up to 2 ** 32, in int64
        packed = torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)
        scales = torch.randn(*before, columns // (group or columns), generator=generator).to(dtype)
        meant = (codes - (1 << bits - 1)).float() * scales.float().repeat_interleave(group or columns, -1)
        return Packed({f"{name}_packed": packed, f"{name}_scale": scales, f"{name}_shape": torch.tensor(shape, dtype=shape_dtype)}, meant)

    return made


def said_of_integers(**weights: object) -> dict[str, object]:
    return {
        "quant_method": "compressed-tensors", "format": "pack-quantized",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": {"num_bits": 4, "type": "int", "symmetric": True, "strategy": "group", "group_size": 32, **weights}}},
    }  # fmt: skip


def packed_checkpoint(plain: Path, folder: Path, scheme: PackedScheme, said: dict[str, object], dtype: torch.dtype = torch.bfloat16) -> Path:
    """`folder` with the linear weights of `plain` packed, in two files: codes, and all that stands beside them. Returns another
    folder, with what they mean, rounded once to `dtype`."""
    meant = folder.with_name(folder.name + "-meant")
    generator = torch.Generator().manual_seed(17)
    codes: Weights = {}
    beside: Weights = {}
    decoded: Weights = {}
    for file in sorted(plain.glob("*.safetensors")):
        for name, weight in load_file(file).items():
            if not name.endswith("_proj.weight"):
                codes[name] = decoded[name] = weight
                continue
            made = scheme(name, tuple(weight.shape), generator)
            decoded[name] = made.meant.to(dtype)
            for key, tensor in made.stored.items():
                (codes if key in (name, f"{name}_packed") else beside)[key] = tensor
    write(folder, plain, said, codes, beside)
    write(meant, plain, None, decoded)
    return meant
