"""Names, dtypes and shapes in; the pickle that torch.save writes for a dict of such contiguous tensors out."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from math import prod

from .dtype_names import STORAGE_OF
from .window import ITEM_BYTES, row_major

BATCH = 1000  # pickle sets this many dict items at a time


def pickle_tensors(tensors: Sequence[tuple[str, str, tuple[int, ...]]]) -> bytes:
    """The bytes of `data.pkl`: protocol 2, tensor i in record `data/<i>`."""
    out = _Out()
    out.put(b"\x80\x02}")
    out.remember()
    for first in range(0, len(tensors), BATCH):
        batch = tensors[first : first + BATCH]
        # A dict of one item has no mark; a last batch of one item does, as in pickle itself.
        out.put(b"(" if len(tensors) > 1 else b"")
        for i, (name, dtype, shape) in enumerate(batch, first):
            out.text(name)
            out.tensor(str(i), dtype, tuple(shape))
        out.put(b"u" if len(tensors) > 1 else b"s")
    if tensors and len(tensors) % BATCH == 0:
        out.put(b"(u")
    out.put(b".")
    return b"".join(out.parts)


class _Out:
    """The opcodes so far and the memo, which counts every object that pickle would remember."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.memo: dict[Hashable, int] = {}
        self.count = 0

    def put(self, data: bytes) -> None:
        self.parts.append(data)

    def remember(self, key: Hashable = None) -> None:
        if key is not None:
            self.memo[key] = self.count
        self.put(b"q" + bytes([self.count]) if self.count < 256 else b"r" + self.count.to_bytes(4, "little"))
        self.count += 1

    def again(self, key: Hashable) -> bool:
        """Writes a reference to what was remembered as `key`, if it was."""
        at = self.memo.get(key)
        if at is None:
            return False
        self.put(b"h" + bytes([at]) if at < 256 else b"j" + at.to_bytes(4, "little"))
        return True

    def text(self, value: str, key: Hashable = None) -> None:
        if key is not None and self.again(key):
            return
        raw = value.encode()
        self.put(b"X" + len(raw).to_bytes(4, "little") + raw)
        self.remember(key)

    def name(self, module: str, name: str) -> None:
        if not self.again((module, name)):
            self.put(f"c{module}\n{name}\n".encode())
            self.remember((module, name))

    def number(self, value: int) -> None:
        if value < 1 << 8:
            self.put(b"K" + value.to_bytes(1, "little"))
        elif value < 1 << 16:
            self.put(b"M" + value.to_bytes(2, "little"))
        elif value < 1 << 31:
            self.put(b"J" + value.to_bytes(4, "little"))
        else:
            raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            self.put(b"\x8a" + bytes([len(raw)]) + raw)

    def numbers(self, values: tuple[int, ...]) -> None:
        if not values:
            self.put(b")")
            return
        self.put(b"(" if len(values) > 3 else b"")
        for value in values:
            self.number(value)
        self.put(b"t" if len(values) > 3 else bytes([0x84 + len(values)]))
        self.remember()

    def tensor(self, key: str, dtype: str, shape: tuple[int, ...]) -> None:
        """_rebuild_tensor_v2(storage, 0, shape, strides, False, OrderedDict()), or _v3 with the dtype as well."""
        typed = dtype in STORAGE_OF
        elements = prod(shape)
        self.name("torch._utils", "_rebuild_tensor_v2" if typed else "_rebuild_tensor_v3")
        self.put(b"((")
        self.text("storage", "storage")
        self.name(*("torch", STORAGE_OF[dtype]) if typed else ("torch.storage", "UntypedStorage"))
        self.text(key)
        self.text("cpu", "cpu")
        self.number(elements if typed else elements * ITEM_BYTES[dtype])
        self.put(b"t")
        self.remember()
        self.put(b"Q")
        self.number(0)
        self.numbers(shape)
        self.numbers(row_major(tuple(max(extent, 1) for extent in shape)))
        self.put(b"\x89")
        self.name("collections", "OrderedDict")
        self.put(b")R")
        self.remember()
        if not typed:
            self.name("torch", dtype)
        self.put(b"t")
        self.remember()
        self.put(b"R")
        self.remember()
