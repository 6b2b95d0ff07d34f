"""A window in, its elements out: as bytes by positional reads, or as a contiguous torch tensor."""

from __future__ import annotations

import os
from math import prod
from typing import TYPE_CHECKING

from ..fault import Fault
from .gather import Gather
from .window import ITEM_BYTES, Window, row_major

if TYPE_CHECKING:
    import torch


def read_at(path: str, at: int, nbytes: int) -> bytearray:
    """Exactly `nbytes` bytes of `path` from offset `at`."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as problem:
        raise Fault("unreadable-file", f"`{path}` cannot be opened: {problem.strerror}") from None
    try:
        return read_descriptor(descriptor, path, at, nbytes)
    finally:
        os.close(descriptor)


def read_descriptor(descriptor: int, path: str, at: int, nbytes: int) -> bytearray:
    """Like `read_at`, from an open file; memory is taken only for bytes that the file has."""
    if at < 0 or nbytes < 0 or at + nbytes > os.fstat(descriptor).st_size:
        raise Fault("truncated-file", f"`{path}` ends before byte {at + nbytes:,}, which its header says it has")
    buffer = bytearray(nbytes)
    view, done = memoryview(buffer), 0
    while done < nbytes:
        try:
            got = os.preadv(descriptor, [view[done:]], at + done)
        except OSError as problem:
            raise Fault("unreadable-file", f"`{path}` cannot be read: {problem.strerror}") from None
        if got == 0:
            raise Fault("truncated-file", f"`{path}` became shorter while it was read")
        done += got
    return buffer


def span(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """How many elements lie from the first to the last one of a window, both included."""
    if 0 in shape:
        return 0
    return 1 + sum((extent - 1) * stride for extent, stride in zip(shape, strides, strict=True))


def read_window(window: Window) -> torch.Tensor:
    """The window's elements as a new contiguous tensor in memory."""
    import torch

    dtype: torch.dtype = getattr(torch, window.dtype)
    if prod(window.shape) == 0:
        return torch.empty(window.shape, dtype=dtype)
    if window.composed:
        data = bytearray(prod(window.shape) * ITEM_BYTES[window.dtype])
        Gather(window).read(_read_into, memoryview(data), 0)
        return torch.frombuffer(data, dtype=torch.uint8).view(dtype).view(window.shape)
    data = read_at(window.path, window.at, span(window.shape, window.strides) * ITEM_BYTES[window.dtype])
    flat = torch.frombuffer(data, dtype=torch.uint8).view(dtype)
    if window.strides == row_major(window.shape):
        return flat.view(window.shape)
    try:
        return flat.as_strided(window.shape, window.strides).contiguous()
    except RuntimeError:  # a stride of 0 makes much of a few bytes
        raise Fault("out-of-memory", f"a tensor of `{window.path}` has the shape {list(window.shape)}, more than fits into memory") from None


def _read_into(path: str, into: memoryview, at: int) -> None:
    into[:] = read_at(path, at, len(into))
