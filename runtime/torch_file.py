"""A torch file in; its tensors as entries, its references to other files, and the keys of everything else, out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .fault import Fault
from .megatron_file import chunks_of, prefix_of
from .read_window import read_at, span
from .torch_globals import Malformed, Reference, Stray, TensorRef, unsafe
from .torch_pickle import PICKLE_BYTES, read_pickle
from .torch_zip import Record, read_directory
from .window import ITEM_BYTES, Entry, Window

WRAPPERS = ("model", "state_dict", "module")


@dataclass
class TorchFile:
    """`references`: names of tensors that lie in other files, each with its number there, in the order of the file."""

    entries: list[Entry] = field(default_factory=list)
    references: dict[str, int] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)


def read_torch_file(path: str, file: str, at: int = 0, nbytes: int | None = None) -> TorchFile:
    """The tensors of the torch zip at `path`; `file` is its name in the checkpoint. A bare tensor has name "".

    With `nbytes` the zip is that many bytes from `at` of an archive at `path`.
    """
    strays: list[str] = []
    records, top = read_value(path, file, at, nbytes, strays)
    if strays:
        _refuse_strays(file, top, strays)
    found = TorchFile()
    try:
        if isinstance(top, TensorRef):
            found.entries.append(entry_of(path, file, "", top, records))
        elif isinstance(top, dict):
            for name, tensor in _leaves(file, top, found.others).items():
                if isinstance(tensor, Reference):
                    found.references[name] = tensor.tid
                else:
                    found.entries.append(entry_of(path, file, name, tensor, records))
        else:
            raise Malformed("it holds neither a dict nor a tensor")
    except Malformed as problem:
        raise Fault("bad-pickle", f"`{file}` is damaged or not a file of tensors: {problem}") from None
    return found


def _refuse_strays(file: str, top: Any, strays: list[str]) -> None:
    """Classes may stand in the state of modules that is no tensor, those of a training run also beside its weights, and
    nowhere else. Without a `state_dict` all of a file is weights, and each class must be that of such a state."""
    run: Any = chunks_of(top) or (top.get("state_dict") if isinstance(top, dict) else None)
    weights = run or top
    if not isinstance(weights, dict):
        raise unsafe(strays[0], file)
    states = {value.name for key, value in weights.items() if _is_state(key) and isinstance(value, Stray)}
    for name in strays:
        if weights is top and name not in states:
            raise unsafe(name, file)
    seen: set[int] = set()
    left: list[Any] = [weights]
    while left:
        value = left.pop()
        if isinstance(value, Stray):
            raise unsafe(value.name, file)
        if isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            left += (*value, *(v for k, v in value.items() if not _is_state(k))) if isinstance(value, dict) else value


def _is_state(key: Any) -> bool:
    """Whether a key is that of what Transformer Engine's modules keep beside their tensors."""
    return isinstance(key, str) and key.endswith("_extra_state")


def read_value(
    path: str, file: str, at: int = 0, nbytes: int | None = None, strays: list[str] | None = None
) -> tuple[dict[str, Record], Any]:
    """The records of the torch zip at `path` and what its pickle holds: plain values, `TensorRef` and the like."""
    records = read_directory(path, file, at, nbytes)
    if "byteorder" in records:
        order = records["byteorder"]
        if bytes(read_at(path, order.at, min(order.nbytes, 16))) != b"little":
            raise Fault("big-endian", f"`{file}` was not saved on a little-endian machine")
    pickled = records["data.pkl"]
    if pickled.nbytes > PICKLE_BYTES:
        raise Fault("bad-pickle", f"the pickle in `{file}` has {pickled.nbytes:,} bytes, more than is read here")
    return records, read_pickle(bytes(read_at(path, pickled.at, pickled.nbytes)), file, strays)


def _leaves(file: str, top: dict[Any, Any], others: list[str]) -> dict[str, TensorRef | Reference]:
    """Named tensors: those of `top` itself, else those in its wrappers, else those at any depth, joined with dots.

    Of a rank file of Megatron-LM, those of its model; where it has virtual stages, after their key.
    """
    found: dict[str, TensorRef | Reference] = {}
    seen: set[int] = set()

    def take(name: str, value: Any, inside: bool) -> None:
        if isinstance(value, (TensorRef, Reference)):
            if name in found:
                raise Fault("duplicate-tensor", f"`{name}` occurs twice in `{file}`")
            found[name] = value
        elif inside and isinstance(value, dict) and value and id(value) not in seen:
            seen.add(id(value))
            for key, item in value.items():
                take(f"{name}.{key}", item, True)
        else:
            others.append(name)

    def unwrap(node: dict[Any, Any]) -> None:
        seen.add(id(node))
        flat = any(isinstance(value, (TensorRef, Reference)) for value in node.values())
        wrapped = [] if flat else [key for key in WRAPPERS if isinstance(node.get(key), dict)]
        for key, value in node.items():
            if key in wrapped:
                if id(value) not in seen:
                    unwrap(value)
            else:
                take(str(key), value, not flat and not wrapped)

    def unwrap_chunks(chunks: dict[str, dict[Any, Any]]) -> None:
        others.extend(str(key) for key in top if key not in chunks)
        for chunk, weights in chunks.items():
            for key, value in weights.items():
                take(f"{prefix_of(chunk)}{key}", value, True)

    try:
        chunks = chunks_of(top)
        if chunks:
            unwrap_chunks(chunks)
        else:
            unwrap(top)
    except RecursionError:
        raise Malformed("dicts are nested too deeply") from None
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
    try:
        name.encode()
    except UnicodeEncodeError:
        raise Malformed(f"{name!r} is not a text") from None
    return Entry(name, file, Window(path, at, tensor.shape, tensor.strides, tensor.dtype))
