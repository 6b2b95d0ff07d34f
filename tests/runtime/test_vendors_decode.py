"""Decoded tensors against the code of those who publish them, where it is installed: random bytes, all codes with all scales."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import ckptc

from ..packed_weights import integers, modelopt, mxfp4, nvfp4, random_bytes

BYTES = torch.arange(256, dtype=torch.uint8)


def read(folder: Path, stored: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    save_file({key: tensor.contiguous() for key, tensor in stored.items()}, folder / "model.safetensors")
    return ckptc.open(folder)[name].read()


def equal(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Bit for bit, but for the payload of a NaN."""
    same = found.view(torch.int16) == wanted.contiguous().view(torch.int16)
    return found.shape == wanted.shape and found.dtype == wanted.dtype and bool((same | (found.isnan() & wanted.isnan())).all())


def test_gpt_oss_is_what_transformers_makes_of_it(tmp_path: Path) -> None:
    theirs = pytest.importorskip("transformers.integrations.mxfp4")
    blocks = BYTES.repeat(256).reshape(1, 256, 16, 16)
    scales = BYTES[None, :, None].expand(1, 256, 16).contiguous()
    found = read(tmp_path, {"w_blocks": blocks, "w_scales": scales}, "w")
    assert torch.equal(found.view(torch.int16), theirs.convert_moe_packed_tensors(blocks, scales).view(torch.int16))
    generator = torch.Generator().manual_seed(1)
    blocks, scales = random_bytes((3, 22, 5, 16), generator), random_bytes((3, 22, 5), generator)
    found = read(tmp_path, {"w_blocks": blocks, "w_scales": scales}, "w")
    assert torch.equal(found.view(torch.int16), theirs.convert_moe_packed_tensors(blocks, scales).view(torch.int16))


def args(**weights: Any) -> Any:
    theirs = pytest.importorskip("compressed_tensors.quantization")
    return theirs.QuantizationScheme(targets=["Linear"], weights=theirs.QuantizationArgs(**weights))


def of_compressor(kind: str, stored: dict[str, torch.Tensor], scheme: Any) -> torch.Tensor:
    theirs = pytest.importorskip("compressed_tensors.compressors")
    return theirs.BaseCompressor.get_value_from_registry(kind).decompress(dict(stored), scheme)["weight"]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(("group", "bits", "shape"), [(32, 4, (64, 96)), (128, 4, (3, 256)), (0, 4, (7, 33)), (0, 8, (7, 33)), (64, 8, (16, 128))], ids=str)
def test_packed_integers_are_what_compressed_tensors_makes_of_them(group: int, bits: int, shape: tuple[int, int], dtype: torch.dtype, tmp_path: Path) -> None:
    scheme = args(num_bits=bits, type="int", symmetric=True, strategy="group" if group else "channel", **({"group_size": group} if group else {}))
    stored = integers(group, dtype, bits)("weight", shape, torch.Generator().manual_seed(3)).stored
    if dtype == torch.bfloat16:
        stored["weight_scale"].view(-1)[:4] = torch.tensor([float("nan"), float("inf"), 3e38, 1e-40]).bfloat16()[: stored["weight_scale"].numel()]
    wanted = of_compressor("pack-quantized", stored, scheme)
    if dtype == torch.float16:  # they round to the scale's dtype, of which bfloat16 is made in a second rounding
        save_file(stored, tmp_path / "model.safetensors")
        exact = integers(group, dtype, bits)("weight", shape, torch.Generator().manual_seed(3)).meant
        assert torch.equal(wanted, exact.half())
        return
    assert equal(read(tmp_path, stored, "weight"), wanted.bfloat16())


def test_nvfp4_is_what_compressed_tensors_makes_of_it(tmp_path: Path) -> None:
    scheme = args(num_bits=4, type="float", symmetric=True, strategy="tensor_group", group_size=16)
    packed = BYTES.repeat(256).reshape(256, 256)  # each byte with each scale
    scales = BYTES[:, None].expand(256, 32).contiguous().view(torch.float8_e4m3fn)
    for whole in (1.0, 3.0, 2688.0, 0.0007, 1e30):
        stored = {"weight_packed": packed, "weight_scale": scales, "weight_global_scale": torch.tensor([whole])}
        assert equal(read(tmp_path, stored, "weight"), of_compressor("nvfp4-pack-quantized", stored, scheme))
    stored = nvfp4("weight", (48, 80), torch.Generator().manual_seed(5)).stored
    assert equal(read(tmp_path, stored, "weight"), of_compressor("nvfp4-pack-quantized", stored, scheme))


def test_mxfp4_is_what_compressed_tensors_makes_of_it(tmp_path: Path) -> None:
    """But for the scale 255, which is no number: they have 0 times infinity."""
    scheme = args(num_bits=4, type="float", symmetric=True, strategy="group", group_size=32)
    packed, scales = BYTES.repeat(256).reshape(256, 256), BYTES[:, None].expand(256, 16).contiguous()
    stored = {"weight_packed": packed, "weight_scale": scales}
    assert equal(read(tmp_path, stored, "weight")[:255], of_compressor("mxfp4-pack-quantized", stored, scheme)[:255])
    stored = mxfp4("weight", (48, 96), torch.Generator().manual_seed(5)).stored
    assert equal(read(tmp_path, stored, "weight"), of_compressor("mxfp4-pack-quantized", stored, scheme))


def test_nvfp4_is_what_model_optimizer_makes_of_it(tmp_path: Path) -> None:
    """But for the code 8, which is -0 here and 0 in NVFP4QTensor.dequantize."""
    theirs = pytest.importorskip("modelopt.torch.quantization.qtensor.nvfp4_tensor").NVFP4QTensor
    packed, scales = BYTES.repeat(256).reshape(256, 256), BYTES[:, None].expand(256, 32).contiguous().view(torch.float8_e4m3fn)
    cases = [{"weight": packed, "weight_scale": scales, "weight_scale_2": torch.tensor(whole)} for whole in (1.0, 0.3, 1e-4, 7e33)]
    for stored in (*cases, modelopt("weight", (48, 80), torch.Generator().manual_seed(5)).stored):
        rows, columns = stored["weight"].shape
        wanted = theirs(torch.Size((rows, 2 * columns)), torch.bfloat16, stored["weight"]).dequantize(
            scale=stored["weight_scale"], double_scale=stored["weight_scale_2"], block_sizes={-1: 16}
        )
        found = read(tmp_path, stored, "weight")
        assert equal(found + 0.0, wanted + 0.0)
        assert equal(torch.where(found == 0, 1.0, found), torch.where(wanted == 0, 1.0, wanted))
