"""A window: where a tensor's elements lie. Readers yield windows, the engine sees nothing else of a format."""

from __future__ import annotations

from dataclasses import dataclass

# dtype name -> bytes per element. Names are torch's own, without `torch.`.
ITEM_BYTES = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "float8_e4m3fn": 1, "float8_e5m2": 1,
    "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1,
    "bool": 1, "complex64": 8, "complex128": 16,
}  # fmt: skip


@dataclass(frozen=True)
class Window:
    """`at` is the byte offset of element [0, ..., 0] in the file at `path`; `strides` are in elements."""

    path: str
    at: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class SideFile:
    """What stands beside the tensors: `nbytes` bytes from `at` of the file at `path`, which may be an archive."""

    name: str
    path: str
    at: int
    nbytes: int


@dataclass(frozen=True)
class Entry:
    """A named tensor of a checkpoint; `file` is its file's name relative to the checkpoint's root, with `/`."""

    name: str
    file: str
    window: Window

    @property
    def shape(self) -> tuple[int, ...]:
        return self.window.shape

    @property
    def dtype(self) -> str:
        return self.window.dtype


def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides, in elements, of a contiguous row-major tensor of `shape`."""
    strides = [1] * len(shape)
    for i in range(len(shape) - 1, 0, -1):
        strides[i - 1] = strides[i] * shape[i]
    return tuple(strides)
