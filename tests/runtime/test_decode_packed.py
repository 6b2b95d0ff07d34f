"""Packed windows against torch: all codes, any range and part, any strides, in constant memory."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import ckptc
from ckptc.runtime.checking.elements import Files, take
from ckptc.runtime.codes.values import values_of
from ckptc.runtime.files.gather import Gather
from ckptc.runtime.files.read_window import read_window
from ckptc.runtime.files.window import Window, along, at_index, block_of, decoded, row_major

from ..packed_weights import E2M1, Packed, PackedScheme, gpt_oss, integers, modelopt, mxfp4, nvfp4
from .test_decode_window import equal, name_of, read, takes_little_memory

CASES: dict[str, tuple[PackedScheme, tuple[int, ...]]] = {
    "gpt-oss": (gpt_oss, (3, 96, 7)), "gpt-oss, one row": (gpt_oss, (2, 64, 1)), "gpt-oss, one block": (gpt_oss, (1, 32, 5)), "nvfp4": (nvfp4, (13, 80)),
    "nvfp4, one row": (nvfp4, (1, 1600)), "modelopt": (modelopt, (13, 80)), "modelopt, experts": (modelopt, (3, 5, 48)), "mxfp4": (mxfp4, (9, 96)),
    "int4": (integers(32), (11, 96)), "int4, float32": (integers(64, torch.float32), (5, 192)), "int4, float16": (integers(128, torch.float16), (3, 256)),
    "int4, rows": (integers(0), (6, 37)), "int4, odd groups": (integers(5), (6, 35)), "int8": (integers(32, bits=8), (11, 96)), "int8, rows": (integers(0, bits=8), (4, 13)),
    "int4, experts": (integers(32), (2, 3, 64)), "int4, int32 shape": (integers(32, shape_dtype=torch.int32), (4, 64)),
}  # fmt: skip


def opened(folder: Path, made: Packed) -> Window:
    save_file(made.stored, folder / "model.safetensors")
    (entry,) = ckptc.open(folder).entries
    assert entry.name == "weight"
    return entry.window


def whole(window: Window) -> list[np.ndarray]:
    return [np.arange(n, dtype=np.int64) * step for n, step in zip(window.shape, row_major(window.shape), strict=True)]


def data(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.flatten().clone(memory_format=torch.contiguous_format).view(torch.uint8).numpy().tobytes())


def checked(window: Window) -> bytes:
    with Files() as files:
        return take(files, window, 0, whole(window)).tobytes()


@pytest.mark.parametrize("kind", ["float4_e2m1fn", "int4"])
def test_each_code_is_the_number_that_is_meant(kind: str) -> None:
    wanted = E2M1 if kind == "float4_e2m1fn" else torch.arange(-8, 8).float()
    assert equal(torch.from_numpy(values_of(kind).copy()), wanted)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("case", CASES)
def test_any_part_is_what_torch_makes_of_it(case: str, dtype: torch.dtype, tmp_path: Path) -> None:
    scheme, shape = CASES[case]
    made = scheme("weight", shape, torch.Generator().manual_seed(sum(shape)))
    wanted = made.meant.to(dtype)
    window = replace(opened(tmp_path, made), dtype=name_of(dtype))
    assert window.shape == shape
    assert equal(read_window(window), wanted)
    assert checked(window) == data(wanted)
    assert window.coded is not None
    stored = wanted.permute(window.coded.axes).contiguous().reshape(-1)
    rng, item = random.Random(5), wanted.element_size()
    for _ in range(25):
        begin = rng.randrange(stored.numel())
        end = rng.randint(begin + 1, stored.numel())
        into = bytearray((end - begin) * item)
        Gather(window, rng.choice((64, 1 << 10, 1 << 20))).read(read, memoryview(into), begin * item)
        assert equal(torch.frombuffer(into, dtype=dtype), stored[begin:end])
        first = tuple(rng.randrange(n) for n in shape)
        size = tuple(rng.randint(1, n - i) for n, i in zip(shape, first, strict=True))
        part, of_part = block_of(window, first, size), wanted[tuple(slice(i, i + n) for i, n in zip(first, size, strict=True))]
        assert equal(read_window(part), of_part.contiguous())
        assert checked(part) == data(of_part)
        index = tuple(rng.randrange(n) for n in size[: rng.randint(1, len(size))])
        inner = at_index(part, index)
        assert equal(read_window(inner), of_part[index].contiguous())
        assert checked(inner) == data(of_part[index])
        again = tuple(rng.randrange(n) for n in inner.shape)
        assert equal(read_window(block_of(inner, again, (1,) * len(again))).reshape(()), of_part[index][again])
    for outer, inner in along(window, 1).items():
        assert equal(read_window(inner), wanted[outer].contiguous())


def test_what_is_no_number_becomes_none(tmp_path: Path) -> None:
    """A scale of NaN or of infinity, and an exponent of 255, of which only what is too large becomes infinite: as transformers has it."""
    made = integers(32)("weight", (4, 32), torch.Generator().manual_seed(2))
    made.stored["weight_scale"][:3, 0] = torch.tensor([float("nan"), float("inf"), 3e38])
    found = read_window(opened(tmp_path, made)).float()
    assert found[0].isnan().all()
    assert bool((found[1].isnan() | found[1].isinf()).all())
    assert found[2].isinf().any()
    (tmp_path / "gpt-oss").mkdir()
    made = gpt_oss("weight", (1, 32, 1), torch.Generator().manual_seed(2))
    made.stored["weight_blocks"][:] = torch.tensor([0x10, 0x98, 0x2A] + [0] * 13, dtype=torch.uint8)
    made.stored["weight_scales"][:] = 255
    window = opened(tmp_path / "gpt-oss", made)
    assert read_window(window).flatten()[:6].tolist() == [0.0, 2.0**127, -0.0, -(2.0**127), float("-inf"), float("inf")]
    assert checked(window) == data(read_window(window))


@pytest.mark.parametrize("case", ["gpt-oss", "nvfp4", "int4", "int8, rows", "int4, rows"])
def test_pickled_tensors_may_have_any_strides(case: str, tmp_path: Path) -> None:
    scheme, shape = CASES[case]
    made = scheme("weight", shape, torch.Generator().manual_seed(8))
    for number, order in enumerate(((1, 0), (0, 1))):
        odd = {}
        for name, tensor in made.stored.items():
            if tensor.ndim > 1:  # the last two axes change places, or stand apart
                raw = tensor.view(torch.uint8) if tensor.dtype == torch.float8_e4m3fn else tensor
                raw = raw.transpose(-1, -2).contiguous().transpose(-1, -2) if order == (1, 0) else raw.repeat_interleave(2, -1)[..., ::2]
                tensor = raw.view(tensor.dtype) if tensor.dtype == torch.float8_e4m3fn else raw
                assert not tensor.is_contiguous() or 1 in tensor.shape
            odd[name] = tensor
        folder = tmp_path / str(number)
        folder.mkdir()
        torch.save(odd, folder / "pytorch_model.bin")
        (entry,) = ckptc.open(folder).entries
        assert equal(read_window(entry.window), made.meant.bfloat16())
        assert checked(entry.window) == data(made.meant.bfloat16())


@pytest.mark.parametrize("case", ["gpt-oss", "nvfp4", "int4", "int4, rows"])
def test_decoding_takes_no_more_memory_for_a_larger_tensor(case: str, tmp_path: Path) -> None:
    shape = (2, 1024, 1200) if case == "gpt-oss" else (1300, 2048)
    window = opened(tmp_path, CASES[case][0]("weight", shape, torch.Generator().manual_seed(1)))
    takes_little_memory(window)
    assert decoded(window.coded, "bfloat16") == window


@pytest.mark.parametrize("scratch", [64, 1 << 12, 1 << 20])
@pytest.mark.parametrize("case", [*CASES, "fp8"])
def test_runs_that_stand_apart_are_what_they_are_one_by_one(case: str, scratch: int, tmp_path: Path) -> None:
    scheme, shape = CASES.get(case, (of_fp8, (12, 80)))
    made = scheme("weight", shape, torch.Generator().manual_seed(9))
    window = opened(tmp_path, made)
    assert window.coded is not None
    columns = window.coded.shape[-1]
    rng, flat = random.Random(3), made.meant.bfloat16().permute(window.coded.axes).contiguous().reshape(-1)
    for by in (columns, columns, columns, 2 * columns, columns + 1):
        run = rng.randint(1, columns)
        first = rng.randrange(min(columns, flat.numel() - run + 1))
        turns = min(7, 1 + (flat.numel() - run - first) // by)
        into = bytearray(turns * run * 2)
        Gather(window, scratch).read_turns(read, memoryview(into), first * 2, run * 2, by * 2)
        wanted = torch.stack([flat[first + k * by : first + k * by + run] for k in range(turns)])
        assert equal(torch.frombuffer(into, dtype=torch.bfloat16).reshape(turns, run), wanted)


def of_fp8(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Packed:
    codes = torch.randint(0, 120, shape, generator=generator).to(torch.uint8).view(torch.float8_e4m3fn)
    scales = torch.rand(1, 1, generator=generator)
    return Packed({name: codes, f"{name}_scale_inv": scales}, codes.float() * scales)
