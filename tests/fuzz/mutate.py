"""Bytes and a source of chance in, damaged bytes out."""

from __future__ import annotations

import json
import random
from copy import deepcopy
from typing import Any

_NUMBERS = (0, 1, 2, 3, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 1.5, 1e308, 10**30, 1 << 62, "", "x", "../x", "\0", "1", "é" * 300, [], {}, [[]], {"a": 1}, [0] * 70, ["a"], [1 << 62, 1 << 62],
)  # fmt: skip


def mutate(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Between one and eight changes."""
    if chance.random() < 0.4 and (changed := _structure(data, chance)) is not None:
        return changed
    found = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        _change(found, others, chance)
    return bytes(found[: 1 << 20])


def _change(data: bytearray, others: list[bytes], chance: random.Random) -> None:
    at = chance.randrange(len(data) + 1)
    size = min(len(data) - at, chance.choice((1, 1, 2, 4, 8, 16, 64, 512)))
    match chance.randrange(9):
        case 0:
            data[at : at + size] = chance.randbytes(size)
        case 1 if at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        case 2:
            del data[at : at + size]
        case 3:
            data[at:at] = data[at : at + size] * chance.choice((1, 2, 50))
        case 4:
            width = chance.choice((1, 2, 4, 8))
            data[at : at + width] = (chance.choice(_NUMBERS) & ((1 << 8 * width) - 1)).to_bytes(width, chance.choice(("little", "big")))
        case 5:
            other = chance.choice(others)
            begin = chance.randrange(len(other) + 1)
            data[at : at + size] = other[begin : begin + chance.choice((size, 4 * size))]
        case 6:
            del data[at:]
        case 7:
            digits = [i for i, byte in enumerate(data) if 48 <= byte < 58]
            if digits:
                i = chance.choice(digits)
                data[i : i + 1] = chance.choice((b"0", b"9", b"99999999999", b"-1", b"1e400", b"1.5"))
        case _:
            other_at = chance.randrange(len(data) + 1)
            data[at:at] = data[other_at : other_at + size]


def _structure(data: bytes, chance: random.Random) -> bytes | None:
    """A JSON document with a value replaced, dropped or doubled; None of what is no JSON."""
    lead = b""
    text = data
    if data[8:9] == b"{":  # a safetensors file: its header
        size = int.from_bytes(data[:8], "little")
        text, lead = data[8 : 8 + size], data[8 + size :]
    try:
        document = json.loads(text)
    except ValueError:
        return None
    places: list[tuple[Any, Any]] = []
    _walk(document, places)
    if not places:
        return None
    for _ in range(chance.choice((1, 1, 2))):
        holder, key = chance.choice(places)
        try:
            if chance.random() < 0.2:
                del holder[key]
            else:
                other, at = chance.choice(places)
                holder[key] = deepcopy(chance.choice((*_VALUES, other[at])))
        except (KeyError, IndexError):
            continue
    try:
        made = json.dumps(document).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        return None
    return len(made).to_bytes(8, "little") + made + lead if text is not data else made


def _walk(value: Any, places: list[tuple[Any, Any]]) -> None:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in pairs:
        places.append((value, key))
        if len(places) < 5000:
            _walk(inner, places)
