"""Kernels against numpy and torch, bit for bit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptc.runtime.files.window import ITEM_BYTES
from ckptc.runtime.kernels import kernels
from ckptc.runtime.kernels.kernels import ITEMS, cast, copy, fill, turned

TORCH = {name: getattr(torch, name) for name in ("bfloat16", "float16", "float32", "float64")}


@pytest.fixture(autouse=True, params=["numpy", "compiled"], scope="module")
def loops(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways are the same, bit for bit."""
    kernels.prepare(kernels.WORTH_BYTES if request.param == "compiled" else kernels.WORTH_BYTES - 1)
    assert kernels._loops.__name__.endswith("jit" if request.param == "compiled" else "turned")
    yield
    kernels._loops = kernels.plain


def values(dtype: str) -> Any:
    """All patterns of a 16-bit dtype; for the wider ones every edge and many at random."""
    rng = np.random.default_rng(0)
    if ITEM_BYTES[dtype] == 2:
        return np.arange(65536, dtype=np.uint16)
    if dtype == "float32":
        tops = np.arange(65536, dtype=np.uint32) << 16
        near = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
        halves = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32).view(np.uint32)
        edges = [halves + np.uint32(d & 0xFFFFFFFF) for d in (0, 0xFFF, 0x1000, 0x1001)]
        return np.concatenate([(tops[:, None] + near).reshape(-1), *edges, rng.integers(0, 2**32, 500_000, np.uint32)])
    with np.errstate(invalid="ignore"):
        floats = values("float32").view(np.float32).astype(np.float64).view(np.uint64)
    return np.concatenate([floats, floats + np.uint64(1), rng.integers(0, 2**64, 500_000, np.uint64)])


def through_torch(bits: Any, one: str, two: str) -> Any:
    kinds = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    tensor = torch.from_numpy(bits.view(f"i{bits.itemsize}")).view(TORCH[one]).to(TORCH[two])
    return tensor.view(kinds[ITEM_BYTES[two]]).numpy().view(ITEMS[ITEM_BYTES[two]])


def is_nan(bits: Any, dtype: str) -> Any:
    tensor = torch.from_numpy(bits.view(f"i{bits.itemsize}").copy()).view(TORCH[dtype])
    return torch.isnan(tensor.double() if dtype != "float64" else tensor).numpy()


@pytest.mark.parametrize("two", TORCH)
@pytest.mark.parametrize("one", TORCH)
def test_a_cast_is_torchs_and_nan_stays_nan(one: str, two: str) -> None:
    if one == two:
        return
    bits = values(one)
    got = np.zeros(len(bits), ITEMS[ITEM_BYTES[two]])
    cast(bits, got, 0, 0, ((len(bits), 1, 1),), (one, two))
    wanted = through_torch(bits, one, two)
    nans = is_nan(bits, one)
    assert (is_nan(got, two) == nans).all()
    assert (got[~nans] == wanted[~nans]).all()


@pytest.mark.parametrize("one", TORCH)
@pytest.mark.parametrize("two", TORCH)
def test_arithmetic_is_torchs_in_float32(one: str, two: str) -> None:
    bits = values(one)[::7].copy()
    got = np.zeros(len(bits), ITEMS[ITEM_BYTES[two]])
    cast(bits, got, 0, 0, ((len(bits), 1, 1),), (one, two), 0.5, 1.0)
    tensor = torch.from_numpy(bits.view(f"i{bits.itemsize}").copy()).view(TORCH[one])
    wide = tensor.double() if "float64" in (one, two) else tensor.float()
    wanted = wide * 0.5 + 1.0
    kept = ~torch.isnan(wanted).numpy()
    size = ITEM_BYTES[two]
    plain = wanted.to(TORCH[two]).view({2: torch.int16, 4: torch.int32, 8: torch.int64}[size]).numpy().view(ITEMS[size])
    assert (got[kept] == plain[kept]).all()
    assert (is_nan(got, two) == ~kept).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 70), min_size=1, max_size=3), st.data(), st.sampled_from([1, 2, 4, 8, 16]),
    st.sampled_from([("float32", "bfloat16"), ("bfloat16", "float32"), ("float16", "bfloat16"), ("int32", "float32")]),
)  # fmt: skip
def test_boxes_of_any_order_are_copied_and_cast(shape: list[int], data: Any, item: int, dtypes: tuple[str, str]) -> None:
    order = data.draw(st.permutations(range(len(shape))))
    strides = np.cumprod([1, *shape[::-1]])[::-1][1:].tolist()
    turned_shape = [shape[k] for k in order]
    by = dict(zip(order, np.cumprod([1, *turned_shape[::-1]])[::-1][1:].tolist(), strict=True))
    loops = tuple(sorted(((shape[k], strides[k], by[k]) for k in range(len(shape))), key=lambda loop: -loop[2]))
    n = int(np.prod(shape))
    rng = np.random.default_rng(n)
    source = rng.integers(0, 100, n + 3).astype(ITEMS[item])
    target = np.zeros(n + 5, ITEMS[item])
    copy(source, target, 3, 5, loops)
    wanted = source[3:].reshape(shape).transpose(order).reshape(-1)
    assert (target[5:] == wanted).all()
    assert (target[:5] == 0).all()
    one, two = dtypes
    small = source.real.astype(np.int32)
    typed = (small if one == "int32" else small.astype(np.float32)).view(np.uint32)
    if one != "float32" and one != "int32":
        typed = (
            (typed >> 16).astype(np.uint16) if one == "bfloat16" else small.astype(np.float16).view(np.uint16)
        )  # fmt: skip
    got = np.zeros(n, ITEMS[ITEM_BYTES[two]])
    cast(typed, got, 3, 0, loops, dtypes)
    plain = small[3:].reshape(shape).transpose(order).reshape(-1).astype(np.float32).view(np.uint32)
    assert (got == (plain if two == "float32" else plain >> 16)).all()


def test_a_fill_writes_zeros_in_its_box_alone() -> None:
    target = np.ones(20, np.uint16)
    fill(target, 2, ((3, 0, 5), (2, 0, 1)))
    assert np.flatnonzero(target == 0).tolist() == [2, 3, 7, 8, 12, 13]


def test_only_boxes_whose_runs_differ_are_turned() -> None:
    assert turned(((64, 1, 64), (64, 64, 1)))
    assert not turned(((64, 128, 64), (64, 1, 1)))
