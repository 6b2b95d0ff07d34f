"""The second account of casts, floating types and distances, against torch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ckptc.runtime.checking.elements import Files, take
from ckptc.runtime.checking.numbers import apart, bits_of, cast, numbers, shown, truncated, unequal
from ckptc.runtime.files.window import Tile, Window

WIDE = ("float64", "float32", "float16", "bfloat16")
EIGHT = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
INT = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def raw(tensor: torch.Tensor) -> np.ndarray:
    dtype = str(tensor.dtype).removeprefix("torch.")
    return tensor.contiguous().view(torch.uint8).numpy().view(bits_of(dtype)).reshape(tensor.shape)


def samples(dtype: str) -> torch.Tensor:
    """All of 16 bits, or many with every exponent."""
    kind = getattr(torch, dtype)
    if kind.itemsize == 2:
        return torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16).view(kind)
    rng = torch.Generator().manual_seed(5)
    bits = torch.randint(-(2**31), 2**31 - 1, (70_000,), generator=rng, dtype=torch.int64)
    if kind.itemsize == 4:
        near = torch.cat([torch.arange(-3, 4) + n for n in (0x3F808000, 0x477FE000, 0x477FF000, 0x7F7F8000, 0x33000000, 0x38800000)])
        return torch.cat([bits, near]).to(torch.int32).view(kind)
    return torch.cat([torch.randn(7000, generator=rng, dtype=torch.float64) * 10.0**k for k in (-310, -45, -8, 0, 4, 38, 300)])


@pytest.mark.parametrize("target", WIDE)
@pytest.mark.parametrize("source", WIDE)
def test_casts_are_torchs(source: str, target: str) -> None:
    values = samples(source)
    wanted = raw(values.to(getattr(torch, target)))
    if source == "float64" and target in ("float16", "bfloat16"):
        wanted = raw(values.float().to(getattr(torch, target)))
    assert not unequal(cast(raw(values), source, target), wanted, target, exact=False).any()


@pytest.mark.parametrize("dtype", [*WIDE, *EIGHT])
def test_numbers_are_torchs(dtype: str) -> None:
    values = torch.arange(256, dtype=torch.uint8).view(getattr(torch, dtype)) if dtype in EIGHT else samples(dtype)
    np.testing.assert_array_equal(numbers(raw(values), dtype).astype(np.float64), values.double().numpy())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_arithmetic_is_in_float32_in_two_roundings(dtype: str) -> None:
    values = samples(dtype)
    wanted = (values.float() * 0.3 + 1).to(getattr(torch, dtype))
    assert not unequal(cast(raw(values), dtype, dtype, np.float32(0.3), 1.0), raw(wanted), dtype, exact=False).any()


def test_cutting_off_is_towards_zero() -> None:
    values = torch.tensor([1.0, 1.00389, -1.00389, 3.1415927, -2.999])
    cut = truncated(raw(values), "float32", "bfloat16")
    assert cut is not None
    found = torch.from_numpy(cut.view(np.int16).copy()).view(torch.bfloat16).float()
    assert (found.abs() <= values.abs()).all()
    assert (found.abs() >= values.abs() * (1 - 2**-7)).all()


def test_distances_count_values_between() -> None:
    a = torch.tensor([1.0, -0.0, 2.0, float("nan")])
    b = torch.tensor([1.0, 0.0, torch.nextafter(torch.tensor(2.0), torch.tensor(3.0)), 1.0])
    assert apart(raw(a), raw(b), "float32") == (2.0**-22, 1)
    tiny = torch.tensor([1e-45])
    assert apart(raw(tiny), raw(-tiny), "float32")[1] == 2
    assert apart(raw(torch.tensor([3, 9])), raw(torch.tensor([3, 4])), "int64") == (5.0, None)
    assert apart(raw(torch.tensor([float("inf")])), raw(torch.tensor([1.0])), "float32")[0] == float("inf")


def test_elements_are_shown_as_json_has_them() -> None:
    assert shown(raw(torch.tensor([1.5], dtype=torch.bfloat16))[0], "bfloat16") == 1.5
    assert shown(raw(torch.tensor([float("inf")]))[0], "float32") == "inf"
    assert shown(raw(torch.tensor([float("nan")]))[0], "float32") == "nan (0x7fc00000)"
    assert shown(raw(torch.tensor([7]))[0], "int64") == 7
    assert shown(raw(torch.tensor([True]))[0], "bool") == "True"


@pytest.mark.parametrize("near", [1, 7, 3000])
def test_elements_are_read_from_windows_of_any_strides_and_tiles(near: int, tmp_path: object) -> None:
    from pathlib import Path

    place = Path(str(tmp_path)) / "data"
    values = torch.randn(13, 7, 5 * near)
    values.numpy().tofile(place)
    whole = Window(str(place), 0, (13, 7, 5 * near), (35 * near, 5 * near, 1), "float32")
    turned = Window(str(place), 0, (5 * near, 7, 13), (1, 5 * near, 35 * near), "float32")
    halves = tuple(Tile((at, 0, 0), Window(str(place), at * 35 * near * 4, (n, 7, 5 * near), whole.strides, "float32")) for at, n in ((0, 6), (6, 7)))
    tiled = Window(str(place), 0, whole.shape, whole.strides, "float32", halves)
    rows, columns = np.array([12, 0, 5]), np.array([3, 1, 4]) * near
    with Files() as files:
        for window in (whole, tiled):
            found = take(files, window, 2 * 5 * near, [rows * 35 * near, columns])
            np.testing.assert_array_equal(found, raw(values[rows][:, 2][:, columns]))
        found = take(files, turned, 3, [columns * 91, np.arange(7) * 13])
        np.testing.assert_array_equal(found, raw(values.permute(2, 1, 0)[columns][:, :, 3].contiguous()))
