"""`python benchmarks/kernels.py`: each class of copy beside numpy's and torch's, one thread, and two threads beside one.

Medians, in GB/s read and written. A memory copy is the row `range`: turned and cast copies are to make half of it, and two
threads 1.7 times what one makes. What is copied is as large as the engine's own buffers, and there are many of them.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable

import numpy as np
import torch

from ckptc.runtime.files.decode_window import decode_range, steps
from ckptc.runtime.files.gather import SCRATCH_BYTES
from ckptc.runtime.files.window import ITEM_BYTES, Coded, Window, decoded, row_major
from ckptc.runtime.kernels import kernels

ITEMS = 1 << 20  # of one buffer
BUFFERS = 48  # so that they are not in a cache when their turn comes
TURNS = 7

Ends = tuple[np.ndarray, np.ndarray]


def made(one: type, two: type) -> list[Ends]:
    numbers = np.random.default_rng(0).standard_normal(ITEMS, np.float32).view(np.uint32)
    numbers = numbers if one is np.uint32 else (numbers >> 16).astype(one)
    return [(numbers.copy(), np.zeros(ITEMS, two)) for _ in range(BUFFERS)]


def speed(run: Callable[[np.ndarray, np.ndarray], object], ends: list[Ends], threads: int = 1) -> float:
    """GB/s read and written: of one thread by its processor time, of several by the clock."""
    own: list[float] = []

    def some(k: int) -> None:
        began = time.thread_time()
        for source, target in ends[k::threads]:
            run(source, target)
        own.append(time.thread_time() - began)

    spent = []
    for _ in range(TURNS):
        workers = [threading.Thread(target=some, args=(k,)) for k in range(threads)]
        began = time.perf_counter()
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        spent.append(time.perf_counter() - began if threads > 1 else own[-1])
    return sum(a.nbytes + b.nbytes for a, b in ends) / statistics.median(spent) / 1e9


def tensor(array: np.ndarray, dtype: torch.dtype) -> torch.Tensor:
    return torch.from_numpy(array.view(f"i{array.itemsize}")).view(dtype)


def row(name: str, ends: list[Ends], own: Callable[..., object], torchs: Callable[..., object], copied: float, turned: bool = True) -> float:
    one, two, other = speed(own, ends), speed(own, ends, 2), speed(torchs, ends)
    half = f"{one / copied:.2f} of a copy, {'met' if one >= copied / 2 else 'not met'}" if copied and turned else ""
    scaled = f"{two / one:.2f} x by two threads, {'met' if two >= 1.7 * one else 'not met'}"
    print(f"{name:26}{one:7.2f}   torch {other:6.2f}   {scaled:36}{half}", flush=True)
    return one


def decoding() -> None:
    """bfloat16 that is made of codes and scales, in GB/s of one thread, and beside it the copy of as many bytes."""
    print("decoded to bfloat16, GB/s of what is made:")
    shape, numbers = (2048, 7168), np.random.default_rng(0)
    rows, columns = shape
    kinds = (
        ("FP8, 128 x 128", "float8_e4m3fn", ("uint8", 1), ("float32", (128, 128))), ("FP8, rows", "float8_e4m3fn", ("uint8", 1), ("float32", (1, columns))),
        ("MXFP4", "float4_e2m1fn", ("uint8", 2), ("uint8", (1, 32))), ("NVFP4", "float4_e2m1fn", ("uint8", 2), ("float8_e4m3fn", (1, 16))),
        ("int4, groups of 32", "int4", ("int32", 8), ("bfloat16", (1, 32))), ("int4, groups of 128", "int4", ("int32", 8), ("bfloat16", (1, 128))),
    )  # fmt: skip
    made = memoryview(bytearray(2 * rows * columns))
    for name, kind, (of_codes, per), (of_scales, block) in kinds:
        sizes = {"codes": (of_codes, (rows, columns // per)), "scales": (of_scales, (-(-rows // block[0]), columns // block[1])), "second": ("float32", (1, 1))}
        held = {part: numbers.integers(1, 120, ITEM_BYTES[dtype] * a * b, np.uint8).tobytes() for part, (dtype, (a, b)) in sizes.items()}
        codes, scales, second = (Window(part, 0, size, row_major(size), dtype) for part, (dtype, size) in sizes.items())
        window = decoded(Coded(codes, scales, block, (0, 0), kind, shape, (0, 1), second if name == "NVFP4" else None), "bfloat16")

        def fetch(window: Window, at: int, count: int, held: dict[str, bytes] = held) -> bytearray:
            item = ITEM_BYTES[window.dtype]
            return bytearray(held[window.path][at * item : (at + count) * item])

        spent = []
        for _ in range(TURNS):
            began, tables = time.thread_time(), dict[tuple[int, ...], np.ndarray]()
            for begin, end in steps(window, 0, rows * columns, SCRATCH_BYTES):
                decode_range(window, begin, end, made[2 * begin : 2 * end], fetch, tables)
            spent.append(time.thread_time() - began)
        print(f"{name:26}{len(made) / statistics.median(spent) / 1e9:7.2f}", flush=True)


def main() -> None:
    torch.set_num_threads(1)
    halves, words = made(np.uint16, np.uint16), made(np.uint32, np.uint32)
    run = ((ITEMS, 1, 1),)
    copied = row("range", halves, lambda a, b: kernels.copy(a, b, 0, 0, run), lambda a, b: tensor(b, torch.int16).copy_(tensor(a, torch.int16)), 0.0)
    for size in (64, 4096):
        n = size // 2
        rows = ((ITEMS // 2 // n, 2 * n, n), (n, 1, 1))
        row(
            f"rows of {size} B", [(a, b[: ITEMS // 2]) for a, b in halves], lambda a, b, rows=rows: kernels.copy(a, b, 0, 0, rows),
            lambda a, b, n=n: tensor(b, torch.int16).view(-1, n).copy_(tensor(a, torch.int16).view(-1, 2 * n)[:, :n]), copied, turned=False,
        )
    for way, least in (("numpy", 0), ("numba", kernels.WORTH_BYTES)):
        kernels.prepare(least)
        again(way, halves, words, copied)
    decoding()


def again(way: str, halves: list[Ends], words: list[Ends], copied: float) -> None:
    run = ((ITEMS, 1, 1),)
    print(f"by {way}:")
    for item, ends, kind in ((2, halves, torch.int16), (4, words, torch.int32)):
        for tall, wide in ((1024, 1024), (256, 4096)):
            loops = ((wide, 1, tall), (tall, wide, 1))
            row(
                f"turned {tall} x {wide}, {item} B", ends, lambda a, b, loops=loops: kernels.copy(a, b, 0, 0, loops),
                lambda a, b, t=tall, w=wide, kind=kind: tensor(b, kind).view(w, t).copy_(tensor(a, kind).view(t, w).T), copied,
            )
    names = {"bfloat16": np.uint16, "float32": np.uint32, "float16": np.uint16}
    for one, two in (("bfloat16", "float32"), ("float32", "bfloat16"), ("float32", "float16")):
        row(
            f"{one} to {two}", made(names[one], names[two]), lambda a, b, one=one, two=two: kernels.cast(a, b, 0, 0, run, (one, two)),
            lambda a, b, one=one, two=two: tensor(b, getattr(torch, two)).copy_(tensor(a, getattr(torch, one))), copied,
        )


if __name__ == "__main__":
    main()
