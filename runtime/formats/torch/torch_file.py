"""A torch file in; its tensors as entries, its references to other files, and the keys of everything else, out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ...fault import Fault
from ...files.read_window import read_at, span
from ...files.window import ITEM_BYTES, Entry, Window, is_text
from .inert import is_state
from .pickle_names import Malformed, Reference, Stray, TensorRef, unsafe
from .pickle_read import PICKLE_BYTES, read_pickle
from .zip_read import Record, read_directory

WRAPPERS = ("model", "state_dict", "module")
# What stands before the names in a dict of weights, the dict, and whether dicts within it hold weights too.
_Weights: TypeAlias = tuple[str, dict[Any, Any], bool]
# All that a file holds in, the dicts of tensors in it out: by key, each with what stands before the names of its tensors.
Chunks: TypeAlias = Callable[[Any], Mapping[Any, tuple[str, dict[Any, Any]]]]


def no_chunks(top: Any) -> Mapping[Any, tuple[str, dict[Any, Any]]]:
    """Of a framework that has no keys of its own around its tensors."""
    return {}


@dataclass
class TorchFile:
    """`references`: names of tensors that lie in other files, each with its number there, in the order of the file.
    `records`: what the zip consists of."""

    entries: list[Entry] = field(default_factory=list)
    references: dict[str, int] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    records: Mapping[str, Record] = field(default_factory=dict)


def read_torch_file(path: str, file: str, at: int = 0, nbytes: int | None = None, chunks_of: Chunks = no_chunks) -> TorchFile:
    """The tensors of the torch zip at `path`; `file` is its name in the checkpoint. A bare tensor has name "".

    With `nbytes` the zip is that many bytes from `at` of an archive at `path`. `chunks_of` finds the dicts of tensors of a
    framework that keeps them under keys of its own.
    """
    strays: list[str] = []
    records, top = read_value(path, file, at, nbytes, strays)
    found = TorchFile(records=records)
    try:
        chunks = chunks_of(top)
        weights = _weights_of(top, chunks) if isinstance(top, dict) else []
        _refuse_strays(file, top, weights, strays, bool(chunks))
        if isinstance(top, TensorRef):
            found.entries.append(entry_of(path, file, "", top, records))
        elif isinstance(top, dict):
            for name, tensor in _leaves(file, weights, found.others).items():
                if isinstance(tensor, Reference):
                    found.references[name] = tensor.tid
                else:
                    found.entries.append(entry_of(path, file, name, tensor, records))
        else:
            raise Malformed("it holds neither a dict nor a tensor")
    except (Malformed, RecursionError) as problem:
        reason = str(problem) if isinstance(problem, Malformed) else "dicts are nested too deeply"
        raise Fault("bad-pickle", f"`{file}` is damaged or not a file of tensors: {reason}") from None
    return found


def _refuse_strays(file: str, top: Any, weights: Sequence[_Weights | str], strays: Sequence[str], chunked: bool) -> None:
    """Classes may stand where modules keep what is no tensor, and beside weights: inert ones in every file, all others in
    those of a training run. Nothing else of theirs is read past."""
    trained = isinstance(top, dict) and (chunked or isinstance(top.get("state_dict"), dict))
    expected = set() if trained or not strays else set(_names_of_strays(top)) - set(_names_of_strays(top, of_state=False))
    if not trained and (odd := [name for name in strays if name not in expected]):
        raise unsafe(odd[0], file)
    for part in weights:
        for name in () if isinstance(part, str) else _names_of_strays(part[1], of_state=False):
            raise unsafe(name, file)


def _names_of_strays(value: Any, of_state: bool = True) -> Iterator[str]:
    """The classes of all in `value`; without `of_state`, none of what modules keep beside their tensors."""
    seen: set[int] = set()
    left: list[Any] = [value]
    while left:
        value = left.pop()
        if isinstance(value, Stray):
            yield value.name
            value = [value.items, value.args, value.state]
        if isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            left += (*value, *(v for k, v in value.items() if of_state or not is_state(k))) if isinstance(value, dict) else value


_MOST_KNOWN = 16  # pickles, of which ranks that differ in their tensors alone have few


def read_value(
    path: str, file: str, at: int = 0, nbytes: int | None = None, strays: list[str] | None = None, known: dict[bytes, Any] | None = None
) -> tuple[dict[str, Record], Any]:
    """The records of the torch zip at `path` and what its pickle holds: plain values, `TensorRef` and the like.

    `known` holds what other pickles gave, by their bytes, where the values are only looked at.
    """
    records = read_directory(path, file, at, nbytes)
    if "byteorder" in records:
        order = records["byteorder"]
        if bytes(read_at(path, order.at, min(order.nbytes, 16))) != b"little":
            raise Fault("big-endian", f"`{file}` was not saved on a little-endian machine")
    pickled = records["data.pkl"]
    if pickled.nbytes > PICKLE_BYTES:
        raise Fault("bad-pickle", f"the pickle in `{file}` has {pickled.nbytes:,} bytes, more than is read here")
    raw = bytes(read_at(path, pickled.at, pickled.nbytes))
    if known is None:
        return records, read_pickle(raw, file, strays)
    if raw not in known:
        if len(known) >= _MOST_KNOWN:
            known.clear()
        known[raw] = read_pickle(raw, file, strays)
    return records, known[raw]


def _weights_of(top: dict[Any, Any], chunks: Mapping[Any, tuple[str, dict[Any, Any]]]) -> list[_Weights | str]:
    """The dicts that tensors stand in, and the keys beside them: those of a rank file's model or virtual stages, else `top`
    itself if it has tensors, else its wrappers, else all of it at any depth."""
    if chunks:
        return [(*chunks[key], True) if key in chunks else str(key) for key in top]
    found: list[_Weights | str] = []
    seen: set[int] = set()

    def unwrap(node: dict[Any, Any]) -> None:
        seen.add(id(node))
        flat = any(isinstance(value, (TensorRef, Reference)) for value in node.values())
        wrapped = [] if flat else [key for key in WRAPPERS if isinstance(node.get(key), dict)]
        if not wrapped:
            found.append(("", node, not flat))
            return
        for key, value in node.items():
            if key not in wrapped:
                found.append(str(key))
            elif id(value) not in seen:
                unwrap(value)

    unwrap(top)
    return found


def _leaves(file: str, weights: Sequence[_Weights | str], others: list[str]) -> dict[str, TensorRef | Reference]:
    """The tensors in `weights`, those in dicts within them called by all keys, joined with dots."""
    found: dict[str, TensorRef | Reference] = {}
    seen = {id(part[1]) for part in weights if not isinstance(part, str)}

    def take(name: str, value: Any, inside: bool) -> None:
        if isinstance(value, (TensorRef, Reference)):
            if name in found:
                raise Fault("duplicate-tensor", f"`{name}` occurs twice in `{file}`")
            found[name] = value
        elif inside and isinstance(value, dict) and value and id(value) not in seen and not is_state(name):
            seen.add(id(value))
            for key, item in value.items():
                take(f"{name}.{key}", item, True)
        else:
            others.append(name)

    for part in weights:
        if isinstance(part, str):
            others.append(part)
        else:
            prefix, held, inside = part
            for key, value in held.items():
                take(f"{prefix}{key}", value, inside)
    return found


def entry_of(path: str, file: str, name: str, tensor: TensorRef, records: dict[str, Record]) -> Entry:
    """Where a tensor lies, after all that its pickle says was compared with its record."""
    storage, item = tensor.storage, ITEM_BYTES[tensor.dtype]
    record = records.get(f"data/{storage.key}")
    if record is None:
        raise Malformed(f"`{name}` lies in record `data/{storage.key:.80}`, which is missing")
    slack = ITEM_BYTES[storage.dtype] if storage.dtype else 1
    if not storage.nbytes <= record.nbytes < storage.nbytes + slack:
        raise Malformed(f"`{name}` has a storage of {storage.nbytes:,} bytes, its record has {record.nbytes:,}")
    elements = span(tensor.shape, tensor.strides)
    if elements and (tensor.offset + elements) * item > storage.nbytes:
        raise Malformed(f"`{name}` reaches beyond its storage of {storage.nbytes:,} bytes")
    at = record.at + (tensor.offset * item if elements else 0)
    if not is_text(name):
        raise Malformed(f"{name!r} is not a text")
    return Entry(name, file, Window(path, at, tensor.shape, tensor.strides, tensor.dtype))
