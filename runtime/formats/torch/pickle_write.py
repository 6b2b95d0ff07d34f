"""Plain values and tensors in, the pickle that torch.save writes for them out; for a dict of tensors, byte for byte.

Of a value the pickle may hold: dicts, lists, tuples, texts, numbers, None, tensors (`Slot`), references to tensors
in other files (`Reference`), sizes (`Size`), dtypes (`Token`), and objects that are made by their state (`Instance`)
or by a call (`Call`).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ...files.dtypes import STORAGE_OF
from ...files.window import ITEM_BYTES, row_major
from .pickle_names import REFERENCE, Reference, Size, Token

BATCH = 1000  # pickle sets this many items at a time


@dataclass(frozen=True)
class Slot:
    """A contiguous tensor whose data is record `data/<key>`."""

    key: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Instance:
    """An object of class `kind`, with its module, that has `state`: its attributes, or what its class makes of it.

    None leaves it without one.
    """

    kind: str
    state: Any


@dataclass(frozen=True)
class Call:
    """What the function or class `function`, with its module, returns for `args`."""

    function: str
    args: tuple[Any, ...]


def pickle_tensors(tensors: Sequence[tuple[str, str, tuple[int, ...]]]) -> bytes:
    """The bytes of `data.pkl` for a dict of tensors (name, dtype, shape): tensor i is in record `data/<i>`."""
    return pickle_value({name: Slot(str(i), dtype, tuple(shape)) for i, (name, dtype, shape) in enumerate(tensors)})


def pickle_value(value: Any) -> bytes:
    """The bytes of `data.pkl` for a value, protocol 2. Raises `TypeError` for what is none of the kinds above."""
    out = _Out()
    out.put(b"\x80\x02")
    out.value(value)
    out.put(b".")
    return b"".join(out.parts)


class _Out:
    """The opcodes so far and the memo, which counts every object that pickle would remember."""

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.memo: dict[Hashable, int] = {}
        self.count = 0
        self.put = self.parts.append
        self.usual: dict[type, Callable[[Any], None]] = {
            str: lambda text: self.text(text, ("text", text)), int: self.number, tuple: self.group, Instance: lambda each: self.instance(each.kind, each.state),
            Size: lambda extents: self.call("torch.Size", (tuple(extents),)), Slot: lambda slot: self.tensor(slot.key, slot.dtype, slot.shape),
        }  # fmt: skip

    def value(self, value: Any) -> None:
        usual = self.usual.get(type(value))
        if usual is not None:
            usual(value)
            return
        match value:
            case None | True | False:
                self.put({None: b"N", True: b"\x88", False: b"\x89"}[value])
            case int():
                self.number(value)
            case float():
                self.put(b"G" + struct.pack(">d", value))
            case str():
                self.text(value, ("text", value))
            case dict():
                self.put(b"}")
                self.remember()
                self.batches([x for pair in value.items() for x in pair], 2, b"s", b"u")
            case list():
                self.put(b"]")
                self.remember()
                self.batches(value, 1, b"a", b"e")
            case Size():
                self.call("torch.Size", (tuple(value),))
            case tuple():
                self.group(value)
            case Slot(key, dtype, shape):
                self.tensor(key, dtype, shape)
            case Reference(tid):
                self.instance(REFERENCE, {"tid": tid})
            case Instance(kind, state):
                self.instance(kind, state)
            case Call(function, args):
                self.call(function, args)
            case Token(name):
                self.name(*name.rsplit(".", 1))
            case _:
                raise TypeError(f"a pickle of plain values and tensors cannot hold a {type(value).__name__}")

    def batches(self, items: Sequence[Any], each: int, one: bytes, many: bytes) -> None:
        """Items of a dict or list. A collection of one has no mark; a last batch of one does, as in pickle itself."""
        for first in range(0, len(items), BATCH * each):
            self.put(b"(" if len(items) > each else b"")
            for item in items[first : first + BATCH * each]:
                self.value(item)
            self.put(many if len(items) > each else one)
        if items and len(items) % (BATCH * each) == 0:
            self.put(b"(" + many)

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
        if 0 <= value < 1 << 8:
            self.put(b"K" + value.to_bytes(1, "little"))
        elif 0 <= value < 1 << 16:
            self.put(b"M" + value.to_bytes(2, "little"))
        elif -1 << 31 <= value < 1 << 31:
            self.put(b"J" + value.to_bytes(4, "little", signed=True))
        else:
            raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            self.put(b"\x8a" + bytes([len(raw)]) + raw)

    def group(self, values: Iterable[Any]) -> None:
        items = tuple(values)
        if not items:
            self.put(b")")
            return
        self.put(b"(" if len(items) > 3 else b"")
        for item in items:
            self.value(item)
        self.put(b"t" if len(items) > 3 else bytes([0x84 + len(items)]))
        self.remember()

    def call(self, function: str, args: tuple[Any, ...]) -> None:
        self.name(*function.rsplit(".", 1))
        self.group(args)
        self.put(b"R")
        self.remember()

    def instance(self, kind: str, state: Any) -> None:
        self.name(*kind.rsplit(".", 1))
        self.put(b")\x81")
        self.remember()
        if state is not None:
            self.value(state)
            self.put(b"b")

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
        self.group(shape)
        self.group(row_major(tuple(max(extent, 1) for extent in shape)))
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
