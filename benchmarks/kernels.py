"""`python benchmarks/kernels.py`: numpy, numba and torch on each class of copy; medians, one thread, in GB/s written."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from ckptc.runtime.kernels import jit, kernels

SIZE = 64 << 20  # bytes written per call


def speed(run: Callable[[], object], size: int = SIZE) -> float:
    run()
    spent = []
    for _ in range(7):
        began = time.perf_counter()
        run()
        spent.append(time.perf_counter() - began)
    return size / statistics.median(spent) / 1e9


def show(name: str, **found: float) -> None:
    best = max(found.values())
    print(f"{name:22}" + "".join(f"{who:>8} {rate:6.2f} ({rate / best:4.2f})" for who, rate in found.items()))


def numba_rows(source: np.ndarray, target: np.ndarray, rows: int, run: int, by: int) -> None:
    jit._transpose(source, target, 0, 0, np.array([[1, 0, 0]]), rows, by, run, run, 1, 1)


def main() -> None:
    torch.set_num_threads(1)
    n = SIZE // 2
    source, target = np.arange(4 * n, dtype=np.uint16), np.zeros(n, np.uint16)
    one, two = torch.from_numpy(source.view(np.int16)), torch.from_numpy(target.view(np.int16))
    loops = ((n, 1, 1),)
    show("range", numpy=speed(lambda: kernels.copy(source, target, 0, 0, loops)), torch=speed(lambda: two.copy_(one[:n])))
    for size in (4, 64, 256, 4096, 65536):
        run, rows = size // 2, n // (size // 2)
        strided = ((rows, 4 * run, run), (run, 1, 1))
        show(
            f"rows of {size} B",
            numpy=speed(lambda strided=strided: kernels.copy(source, target, 0, 0, strided)),
            numba=speed(lambda rows=rows, run=run: numba_rows(source, target, rows, run, 4 * run)),
            torch=speed(
                lambda rows=rows, run=run: two.view(rows, run).copy_(one[: rows * 4 * run].view(rows, 4 * run)[:, :run])
            ),
        )
    wide = 8192
    tall = n // wide
    turned = ((wide, 1, tall), (tall, wide, 1))
    view = source[:n].reshape(tall, wide)
    show(
        "transpose 2 B",
        numpy=speed(lambda: np.copyto(target.reshape(wide, tall), view.T)),
        numba=speed(lambda: kernels.copy(source, target, 0, 0, turned)),
        torch=speed(lambda: two.view(wide, tall).copy_(one[:n].view(tall, wide).T)),
    )
    half = SIZE // 4
    floats = np.random.default_rng(0).standard_normal(2 * half, np.float32).view(np.uint32)
    bits = (floats >> 16).astype(np.uint16)
    to_float, to_bits = np.zeros(half, np.uint32), np.zeros(half, np.uint16)
    halves = np.zeros(half, np.uint16)

    def rounded() -> None:
        u = floats[:half]
        up = (u + np.uint32(0x7FFF) + ((u >> 16) & 1)) >> 16
        to_bits[:] = np.where((u & 0x7FFFFFFF) > 0x7F800000, (u >> 16) | 0x40, up)

    def tensor(array: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
        return torch.from_numpy(array.view(f"i{array.itemsize}")).view(dtype)

    show(
        "cast bf16 to fp32",
        numpy=speed(lambda: np.left_shift(bits[:half], 16, out=to_float, dtype=np.uint32)),
        numba=speed(lambda: jit.widen(bits, to_float, 0, 0, ((half, 1, 1),))),
        torch=speed(lambda: tensor(to_float, torch.float32).copy_(tensor(bits, torch.bfloat16)[:half])),
    )
    show(
        "cast fp32 to bf16",
        numpy=speed(rounded, SIZE // 2),
        numba=speed(lambda: jit.round_off(floats, to_bits, 0, 0, ((half, 1, 1),)), SIZE // 2),
        torch=speed(lambda: tensor(to_bits, torch.bfloat16).copy_(tensor(floats, torch.float32)[:half]), SIZE // 2),
    )
    show(
        "cast fp32 to fp16",
        numpy=speed(lambda: kernels.cast(floats, halves, 0, 0, ((half, 1, 1),), ("float32", "float16")), SIZE // 2),
        torch=speed(lambda: tensor(halves, torch.float16).copy_(tensor(floats, torch.float32)[:half]), SIZE // 2),
    )
    affine = ("bfloat16", "bfloat16")
    show(
        "bf16 x + 1",
        ours=speed(lambda: kernels.cast(bits, to_bits, 0, 0, ((half, 1, 1),), affine, 1.0, 1.0), SIZE // 2),
        torch=speed(
            lambda: tensor(to_bits, torch.bfloat16).copy_(tensor(bits, torch.bfloat16)[:half].float() + 1), SIZE // 2
        ),
    )


if __name__ == "__main__":
    main()
