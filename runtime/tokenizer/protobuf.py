"""The bytes of a serialized protocol buffer in; its fields out, as places. Nothing is decoded that is not asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

VARINT, FIXED64, SIZED, GROUP, GROUP_END, FIXED32 = range(6)
FIXED = {FIXED64: 8, FIXED32: 4}


class Field(NamedTuple):
    """data[start:end] is the whole field, data[body:end] what stands after its tag, and its size if it has one."""

    number: int
    wire_type: int
    start: int
    body: int
    end: int


def read_varint(data: bytes, at: int, bits: int = 64) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends. Raises ValueError if it is cut off or has too many bits."""
    value = shift = 0
    while shift < bits:
        if at >= len(data):
            raise ValueError(f"a number is cut off at byte {at:,}")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << bits) - 1, at
        shift += 7
    raise ValueError(f"a number before byte {at:,} is too long")


def write_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def walk(data: bytes, at: int = 0, end: int | None = None) -> Iterator[Field]:
    """The fields of the message that is data[at:end], in order: each begins where the one before it ends.

    A group is one field, with all that is in it. Raises ValueError, in a sentence, at what is no field.
    """
    end = len(data) if end is None else end
    while at < end:
        number, wire_type, body, after = _read_field(data, at)
        if wire_type == GROUP_END:
            raise ValueError(f"a group ends at byte {at:,} that never began")
        if wire_type == GROUP:
            after = _end_of_group(data, after, number)
        if after > end:
            raise ValueError(f"field {number} at byte {at:,} ends at byte {after:,}, after the end, {end:,}")
        yield Field(number, wire_type, at, body, after)
        at = after


def _read_field(data: bytes, at: int) -> tuple[int, int, int, int]:
    """Number, wire type, where the body begins, where it ends. Of a group only the tag, which is where it begins."""
    tag, body = read_varint(data, at, 32)
    number, wire_type = tag >> 3, tag & 7
    if not number or wire_type > FIXED32:
        raise ValueError(f"what stands at byte {at:,} is no field")
    if wire_type == VARINT:
        return number, wire_type, body, read_varint(data, body)[1]
    if wire_type == SIZED:
        size, body = read_varint(data, body, 32)
        return number, wire_type, body, body + size
    return number, wire_type, body, body + FIXED.get(wire_type, 0)


def _end_of_group(data: bytes, at: int, number: int) -> int:
    """Where the group ends whose tag ends at `at`. Groups nest, and each ends with its own number."""
    opened = [number]
    while opened:
        number, wire_type, _, after = _read_field(data, at)
        if wire_type == GROUP:
            opened.append(number)
        elif wire_type == GROUP_END and opened.pop() != number:
            raise ValueError(f"the group that ends at byte {at:,} is not the one that began")
        at = after
    return at
