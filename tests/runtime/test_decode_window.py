"""Decoded windows against torch: all codes, ragged blocks, any range, any strides."""

from __future__ import annotations

import math
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from ckptc.runtime.checking.elements import Files, take
from ckptc.runtime.codes.values import values_of
from ckptc.runtime.files.gather import Gather
from ckptc.runtime.files.read_window import read_at, read_window
from ckptc.runtime.files.window import Coded, Window, at_index, block_of, decoded, parts_of, row_major

from ..scaled_weights import grid, spread

BITS = {torch.bfloat16: torch.int16, torch.float16: torch.int16, torch.float32: torch.int32}


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def written(path: Path, tensor: torch.Tensor) -> Window:
    """A window on a file that has three bytes before the tensor."""
    path.write_bytes(b"xyz" + tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    shape = tuple(tensor.shape)
    return Window(str(path), 3, shape, row_major(shape), name_of(tensor.dtype))


def of_fp8(codes: Window, scales: Window, block: tuple[int, ...], first: tuple[int, ...], dtype: str) -> Window:
    return decoded(Coded(codes, scales, block, first, codes.dtype, codes.shape, tuple(range(len(codes.shape)))), dtype)


def equal(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Bit for bit, but for NaN: torch's own depends on whether it was calculated in a vector."""
    bits = BITS[wanted.dtype]
    return found.dtype == wanted.dtype and bool(((found.view(bits) == wanted.view(bits)) | (found.isnan() & wanted.isnan())).all())


def read(path: str, into: memoryview, at: int) -> None:
    into[:] = read_at(path, at, len(into))


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu], ids=str)
def test_each_code_is_the_number_that_torch_has_for_it(dtype: torch.dtype) -> None:
    wanted = torch.arange(256, dtype=torch.uint8).view(dtype).float()
    assert equal(torch.from_numpy(values_of(name_of(dtype)).copy()), wanted)


def test_nan_codes_of_e4m3_keep_their_sign_and_nothing_is_infinite() -> None:
    """OCP 8-bit Floating Point Specification: S.1111.111 is NaN, and there is no infinity."""
    values = values_of("float8_e4m3fn")
    assert np.flatnonzero(np.isnan(values)).tolist() == [0x7F, 0xFF]
    assert np.signbit(values[[0x7F, 0xFF]]).tolist() == [False, True]
    assert not np.isinf(values).any()
    assert np.nanmax(values) == 448.0


CASES = [
    ((300, 200), (128, 128)), ((128, 7), (128, 128)), ((5, 2051), (128, 128)), ((1, 300), (1, 300)), ((37, 290), (1, 290)), ((290, 3), (1, 3)),
    ((37, 11), (37, 11)), ((3, 13, 9), (1, 4, 5)), ((3, 13, 9), (1, 13, 1)), ((17,), (5,)), ((), ()),
]  # fmt: skip


@pytest.mark.parametrize("scale_dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float8_e8m0fnu], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize(("shape", "block"), CASES, ids=str)
def test_any_part_is_what_torch_makes_of_it(shape: tuple[int, ...], block: tuple[int, ...], dtype: torch.dtype, scale_dtype: torch.dtype, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(len(shape) + sum(shape))
    codes = torch.randint(0, 256, shape, generator=generator).to(torch.uint8).view(torch.float8_e4m3fn)
    scales = torch.randn(grid(torch.Size(shape), block), generator=generator)
    if scale_dtype == torch.float8_e8m0fnu:
        scales = torch.randint(0, 256, scales.shape, generator=generator).to(torch.uint8).view(scale_dtype)  # from 2 ** -127 to 2 ** 127, and NaN
    scales = scales.to(scale_dtype)
    wanted = (codes.float() * spread(scales.float(), torch.Size(shape), block)).to(dtype)
    window = of_fp8(written(tmp_path / "codes", codes), written(tmp_path / "scales", scales), block, (0,) * len(shape), name_of(dtype))
    assert [part.path for part in parts_of(window)] == [str(tmp_path / "codes"), str(tmp_path / "scales")]
    assert equal(read_window(window), wanted)
    rng, flat, item = random.Random(5), wanted.reshape(-1), wanted.element_size()
    for _ in range(12):
        begin = rng.randrange(flat.numel())
        end = rng.randint(begin + 1, flat.numel())
        into = bytearray((end - begin) * item)
        Gather(window, rng.choice((64, 1 << 12, 1 << 20))).read(read, memoryview(into), begin * item)
        assert equal(torch.frombuffer(into, dtype=dtype), flat[begin:end])
        first = tuple(rng.randrange(n) for n in shape)
        size = tuple(rng.randint(1, n - i) for n, i in zip(shape, first, strict=True))
        part = block_of(window, first, size)
        assert equal(read_window(part), wanted[tuple(slice(i, i + n) for i, n in zip(first, size, strict=True))].contiguous())
        if shape:
            index = rng.randrange(size[0])
            assert equal(read_window(at_index(part, (index,))), wanted[tuple(slice(i, i + n) for i, n in zip(first, size, strict=True))][index].contiguous())
    with Files() as files:
        found = take(files, window, 0, [np.arange(flat.numel(), dtype=np.int64)])
    assert found.tobytes() == bytes(read_window(window).reshape(-1).view(torch.uint8).numpy().tobytes())


def test_what_is_too_large_becomes_infinite_and_halves_go_to_even(tmp_path: Path) -> None:
    codes = torch.tensor([[448.0, -448.0, 1.0, 1.125]]).to(torch.float8_e4m3fn)
    window = of_fp8(written(tmp_path / "codes", codes), written(tmp_path / "scales", torch.tensor([[1e36]])), (1, 4), (0, 0), "bfloat16")
    assert read_window(window).float().tolist()[0][:2] == [float("inf"), float("-inf")]
    tie = torch.tensor([[1 + 2**-8]])  # halfway between 1 and 1 + 2 ** -7, of which 1 is even
    window = of_fp8(written(tmp_path / "codes", codes), written(tmp_path / "scales", tie), (1, 4), (0, 0), "bfloat16")
    assert read_window(window)[0, 2] == 1.0


def test_codes_of_any_strides_are_decoded(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    codes = torch.randint(0, 255, (13, 9), generator=generator).to(torch.uint8).view(torch.float8_e4m3fn)
    scales = torch.randn(4, 3, generator=generator)
    turned = Window(str(tmp_path / "codes"), 3, (9, 13), (1, 9), "float8_e4m3fn")
    written(tmp_path / "codes", codes)
    window = of_fp8(turned, written(tmp_path / "scales", scales.T.contiguous()), (4, 4), (0, 0), "bfloat16")
    wanted = (codes.T.float() * spread(scales.T, torch.Size((9, 13)), (4, 4))).to(torch.bfloat16)
    assert equal(read_window(window), wanted)


def takes_little_memory(window: Window) -> None:
    """Asserts that decoding the whole of a large tensor in bfloat16 takes little more than `scratch` bytes."""
    into = memoryview(bytearray(math.prod(window.shape) * 2))
    scratch = 256 << 10
    Gather(window, scratch).read(read, into[:4096], 0)
    tracemalloc.start()
    try:
        Gather(window, scratch).read(read, into, 0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 3 * scratch
    assert peak * 3 < len(into)


@pytest.mark.parametrize(("shape", "block"), [((1100, 2050), (128, 128)), ((2050, 1100), (1, 1100)), ((200_000, 11), (128, 128)), ((5, 450_000), (1, 3))], ids=str)
def test_decoding_takes_no_more_memory_for_a_larger_tensor(shape: tuple[int, int], block: tuple[int, int], tmp_path: Path) -> None:
    """It works in `scratch` bytes, and a table of 256 products for each scale along a row."""
    codes = torch.randint(0, 120, shape, dtype=torch.uint8).view(torch.float8_e4m3fn)
    window = of_fp8(written(tmp_path / "codes", codes), written(tmp_path / "scales", torch.rand(grid(torch.Size(shape), block))), block, (0, 0), "bfloat16")
    takes_little_memory(window)
