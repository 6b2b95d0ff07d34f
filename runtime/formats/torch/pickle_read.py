"""A pickle in, plain records out: a small pickle machine of our own that cannot import or call anything.

Python's own Unpickler is not used: its extension registry, its class instantiation and its memory for memo
numbers lie outside of what `find_class` can refuse. Here an opcode either has a line below or is refused.
"""

from __future__ import annotations

import struct
from typing import Any

from ...fault import Fault
from .inert import INERT
from .pickle_names import Malformed, Opaque, Reference, Stray, TensorRef, Token, call, put, storage, token, unsafe

PICKLE_BYTES = 1 << 30
INTEGER_BYTES = 255  # which Python still spells out
_MARK = object()
_CONSTANTS = {b"N": None, b"\x88": True, b"\x89": False, b")": ()}
_FIXED = {b"K": "<B", b"M": "<H", b"J": "<i", b"G": ">d"}
# opcode -> (bytes of its length, is it text)
_COUNTED = {
    b"X": (4, True), b"\x8c": (1, True), b"\x8d": (8, True), b"T": (4, False), b"U": (1, False),
    b"B": (4, False), b"C": (1, False), b"\x8e": (8, False), b"\x96": (8, False),
}  # fmt: skip
_TUPLES = {b"\x85": 1, b"\x86": 2, b"\x87": 3}
_EXTENSIONS = {b"\x82": 1, b"\x83": 2, b"\x84": 4}


def read_pickle(data: bytes, file: str, strays: list[str] | None = None) -> Any:
    """The object that `data` describes. `file` is the name that faults say.

    A name that is neither allowed nor `INERT` is a fault. With a list `strays`, such names are added to it and stand as
    `Stray`, as inert ones always do; the caller refuses these wherever they are of interest.
    """
    if len(data) > PICKLE_BYTES:
        raise Fault("bad-pickle", f"the pickle in `{file}` has {len(data):,} bytes, more than is read here")
    try:
        return _Machine(data, file, strays).run()
    except (Malformed, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, struct.error) as problem:
        reason = str(problem) if isinstance(problem, Malformed) else type(problem).__name__
    except (RecursionError, MemoryError) as problem:
        reason = type(problem).__name__
    if strays:
        raise unsafe(strays[0], file)
    raise Fault(
        "bad-pickle", f"the pickle in `{file}` is damaged or not one of a tensor file: {reason}",
        notes=("nothing was imported or run",),
    )  # fmt: skip


class _Machine:
    """The state of one run: what is still to be read, the stack and the memo."""

    def __init__(self, data: bytes, file: str, strays: list[str] | None) -> None:
        self.data, self.file, self.at, self.strays = data, file, 0, strays
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        while True:
            op = self.take(1)
            if op == b".":
                return self.pop()
            if op in _CONSTANTS:
                self.stack.append(_CONSTANTS[op])
            elif op in _FIXED:
                form = _FIXED[op]
                self.stack.append(struct.unpack(form, self.take(struct.calcsize(form)))[0])
            elif op in _COUNTED:
                width, text = _COUNTED[op]
                raw = self.take(self.number(width))
                self.stack.append(raw.decode() if text else raw.decode("latin-1") if op in b"TU" else raw)
            elif op in _TUPLES:
                items = [self.pop() for _ in range(_TUPLES[op])]
                self.stack.append(tuple(reversed(items)))
            else:
                self.step(op)

    def step(self, op: bytes) -> None:
        """The rarer opcodes, by family."""
        stack = self.stack
        match op:
            case b"q" | b"r":
                self.memo[self.number(1 if op == b"q" else 4)] = self.top()
            case b"\x94":
                self.memo[len(self.memo)] = self.top()
            case b"h" | b"j":
                stack.append(self.memo[self.number(1 if op == b"h" else 4)])
            case b"p":
                self.memo[int(self.line())] = self.top()
            case b"g":
                stack.append(self.memo[int(self.line())])
            case b"(":
                stack.append(_MARK)
            case b"t":
                stack.append(tuple(self.items()))
            case b"]" | b"}" | b"\x8f":
                stack.append({} if op == b"}" else [])
            case b"l" | b"\x91":
                stack.append(self.items())
            case b"d":
                self.fill({}, self.items(), push=True)
            case b"a" | b"e" | b"\x90":
                added = [self.pop()] if op == b"a" else self.items()
                self.extend(added)
            case b"s":
                value, key = self.pop(), self.pop()
                self.fill(self.top(), [key, value])
            case b"u":
                pairs = self.items()
                self.fill(self.top(), pairs)
            case b"c" | b"i":
                found = self.named(self.line(), self.line())
                stack.append(found if op == b"c" else call(found, tuple(self.items())))
            case b"\x93":
                name, module = self.pop(), self.pop()
                if not isinstance(name, str) or not isinstance(module, str):
                    raise Malformed("a global whose name is not a text")
                stack.append(self.named(module, name))
            case b"R" | b"\x81":
                args, function = self.pop(), self.pop()
                stack.append(call(function, args))
            case b"\x92":
                _, args, function = self.pop(), self.pop(), self.pop()
                stack.append(call(function, args))
            case b"o":
                function, *rest = self.items()
                stack.append(call(function, tuple(rest)))
            case b"b":
                state = self.pop()
                if isinstance(self.top(), Reference):
                    self.top().point(state)
                elif isinstance(self.top(), Stray):
                    self.top().state = state
                elif not isinstance(self.top(), (dict, TensorRef, Opaque)):  # theirs are of no interest
                    raise Malformed("attributes for something that has none")
            case b"Q":
                stack.append(storage(self.pop()))
            case b"\x80":
                if self.number(1) > 5:
                    raise Malformed("a protocol above 5")
            case b"\x95":
                self.number(8)  # a frame's length
            case b"0":
                stack.pop()
            case b"1":
                self.items()
            case b"2":
                stack.append(self.top())
            case b"I" | b"L" | b"F" | b"V" | b"\x8a" | b"\x8b":
                stack.append(self.scalar(op))
            case _ if op in _EXTENSIONS:
                raise Fault(
                    "unsafe-pickle",
                    f"the pickle in `{self.file}` asks for extension {self.number(_EXTENSIONS[op])} of the copyreg registry",
                    notes=("nothing was imported or run",),
                )
            case _:
                raise Malformed(f"opcode 0x{op[0]:02x}")

    def named(self, module: str, name: str) -> Token | Stray:
        found = token(module, name)
        if isinstance(found, Stray) and found.name not in INERT:
            if self.strays is None:
                raise unsafe(found.name, self.file)
            self.strays.append(found.name)
        return found

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        taken = self.data[self.at : self.at + count]
        if len(taken) != count:
            raise Malformed("it ends too early")
        self.at += count
        return taken

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def line(self) -> str:
        end = self.data.index(b"\n", self.at)
        text = self.data[self.at : end].decode()
        self.at = end + 1
        return text

    def scalar(self, op: bytes) -> Any:
        """Numbers and texts written as lines, and long integers."""
        if op in b"\x8a\x8b":
            width = self.number(1 if op == b"\x8a" else 4)
            if width > INTEGER_BYTES:
                raise Malformed("a number of more digits than any file has use for")
            return int.from_bytes(self.take(width), "little", signed=True)
        text = self.line()
        match op:
            case b"F":
                return float(text)
            case b"V":
                return text.encode("latin-1").decode("raw_unicode_escape")
            case _:
                return {"00": False, "01": True}[text] if text in ("00", "01") else int(text.removesuffix("L"))

    def top(self) -> Any:
        if self.stack[-1] is _MARK:
            raise Malformed("a mark where a value is due")
        return self.stack[-1]

    def pop(self) -> Any:
        value = self.top()
        self.stack.pop()
        return value

    def items(self) -> list[Any]:
        """All above the topmost mark, which goes too."""
        stack = self.stack
        at = len(stack) - 1
        while stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise Malformed("no mark")
        found = stack[at + 1 :]
        del stack[at:]
        return found

    def extend(self, added: list[Any]) -> None:
        if isinstance(self.top(), Stray):
            return
        if type(self.top()) is not list:
            raise Malformed("items for something that is not a list")
        self.top().extend(added)

    def fill(self, target: Any, pairs: list[Any], push: bool = False) -> None:
        if isinstance(target, Stray):
            target = target.items
        if type(target) is not dict or len(pairs) % 2:
            raise Malformed("keys and values for something that is not a dict")
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            put(target, key, value)
        if push:
            self.stack.append(target)
