"""A safetensors file in, its entries and metadata out: the header is checked whole before it is believed."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from math import prod
from typing import Any

from ...fault import Fault
from ...files.dtypes import DTYPE_OF_CODE
from ...files.read_window import read_at
from ...files.window import ITEM_BYTES, Entry, Window, are_extents, is_text, row_major

HEADER_BYTES = 100_000_000  # the format's own limit


@dataclass(frozen=True)
class SafetensorsHeader:
    entries: tuple[Entry, ...]
    metadata: tuple[tuple[str, str], ...]


def read_safetensors(path: str, file: str) -> SafetensorsHeader:
    """The entries of the file at `path`, in the order of its header; `file` is its name in the checkpoint."""
    try:
        size = os.stat(path).st_size
    except OSError as problem:
        raise Fault("unreadable-file", f"`{file}` cannot be opened: {problem.strerror}") from None
    if size < 8:
        raise _bad(file, f"it has {size} bytes, fewer than the 8 of a header length")
    header_bytes = int.from_bytes(read_at(path, 0, 8), "little")
    if header_bytes > HEADER_BYTES or 8 + header_bytes > size:
        raise _bad(file, f"its header is said to have {header_bytes:,} bytes, the file has {size:,}")
    raw = bytes(read_at(path, 8, header_bytes))
    if not raw.startswith(b"{"):
        raise _bad(file, "its header does not begin with `{`")
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=lambda pairs: _unique(file, pairs))
    except (ValueError, RecursionError) as problem:
        raise _bad(file, f"its header is not JSON ({type(problem).__name__})") from None
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise _bad(file, "`__metadata__` is not an object of texts")
    data_at = 8 + header_bytes
    spans: list[tuple[int, int, str]] = []
    entries: list[Entry] = []
    for name, record in header.items():
        begin, end, dtype, shape = _record(file, name, record)
        spans.append((begin, end, name))
        entries.append(Entry(name, file, Window(path, data_at + begin, shape, row_major(shape), dtype)))
    _refuse_gaps(file, spans, size - data_at)
    return SafetensorsHeader(tuple(entries), tuple(metadata.items()))


def _record(file: str, name: str, record: Any) -> tuple[int, int, str, tuple[int, ...]]:
    """The byte range, dtype and shape of one tensor, checked against each other."""
    if not isinstance(record, dict) or set(record) != {"dtype", "shape", "data_offsets"}:
        raise _bad(file, f"`{name}` is not described by dtype, shape and data_offsets")
    code, extents, offsets = record["dtype"], record["shape"], record["data_offsets"]
    if not isinstance(code, str) or code not in DTYPE_OF_CODE:
        raise Fault(
            "unknown-dtype",
            f"`{name}` in `{file}` has dtype {code!r}, which is not read here",
            notes=("known: " + ", ".join(DTYPE_OF_CODE),),
        )
    if not _naturals(extents) or not _naturals(offsets) or len(offsets) != 2:
        raise _bad(file, f"the shape or data_offsets of `{name}` are not a few whole numbers")
    if not is_text(name):
        raise _bad(file, f"{name!r} is not a text")
    dtype, shape, (begin, end) = DTYPE_OF_CODE[code], tuple(extents), offsets
    if end - begin != prod(shape) * ITEM_BYTES[dtype]:
        raise _bad(file, f"`{name}` is {code} of shape {list(shape)} but has {end - begin:,} bytes")
    return begin, end, dtype, shape


def _refuse_gaps(file: str, spans: list[tuple[int, int, str]], data_bytes: int) -> None:
    """Data must follow each other without a gap and end where the file ends."""
    last = 0
    for begin, end, name in sorted(spans):
        if begin != last:
            raise _bad(file, f"the data of `{name}` begins at {begin:,}, the data before it ends at {last:,}")
        last = end
    if last != data_bytes:
        raise _bad(file, f"its tensors need {last:,} bytes of data, it has {data_bytes:,}")


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and are_extents(value)


def _unique(file: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise Fault("duplicate-tensor", f"`{twice}` occurs twice in the header of `{file}`")
    return found


def _bad(file: str, reason: str) -> Fault:
    return Fault("bad-safetensors", f"`{file}` is not a whole safetensors file: {reason}", help="download or copy it again")
