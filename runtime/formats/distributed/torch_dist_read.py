"""A torch_dist checkpoint in, where its tensors' bytes lie out: `.metadata` says which chunk of which tensor is where.

    .metadata            a pickle of torch.distributed.checkpoint.metadata.Metadata
    __0_0.distcp         blobs, back to back: each a whole torch file of one chunk, or of some object
    common.pt            what is neither tensor nor sharded object (an entry of a .distcp from Megatron-core 0.19 on)
    metadata.json        which format this is

Sources: torch.distributed.checkpoint (metadata.py, filesystem.py), megatron.core.dist_checkpointing. The pickle is read by
an interpreter that makes nothing of what it names, so classes of any release may stand in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ...fault import Fault
from ...files.read_window import read_at
from ...files.window import ITEM_BYTES, Entry, Tile, Window, are_extents, is_text, row_major, tiled
from ..torch.pickle_names import Malformed, Stray, Token
from ..torch.pickle_read import read_pickle
from ..torch.torch_file import read_torch_file, read_value
from ..torch.zip_read import LOCAL
from .check_tiles import Block, check_cover

METADATA, BLOBS = ".metadata", ".distcp"
COMMON, COMMON_ENTRY = "common.pt", "common_state/shard_0_1"
# Of a training run, not of the model. Where several optimizers are chained, as for experts, each has a prefix; `optim` is what torch's own examples of distributed checkpoints call theirs.
_NOT_WEIGHTS = re.compile(r"(chained_\d+\.)*optimizer\.|optim\.|rng_state|rerun_state_machine_state|common_state")
_MAKES = 8  # blobs of one size that are kept to compare with: tensors of one shape, laid out in several ways
_HEAD_BYTES = 1 << 16  # what of a blob is compared at most
Stretch: TypeAlias = Callable[[str], tuple[str, int, int]]  # a file's name: the path, the first byte and how many


@dataclass(frozen=True)
class _Blob:
    file: str
    at: int
    nbytes: int


@dataclass(frozen=True)
class _Described:
    """What `.metadata` says: tensors with their chunks, objects, and where each lies."""

    tensors: Mapping[str, tuple[str, tuple[int, ...], tuple[Block, ...]]]
    objects: tuple[str, ...]
    blobs: Mapping[tuple[str, tuple[int, ...] | None], _Blob]


@dataclass
class Distributed:
    """The tensors of a distributed checkpoint, and the keys of what is not one of the model's."""

    entries: list[Entry] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


def read_torch_dist(place: Stretch, folder: str) -> Distributed:
    """The tensors of the checkpoint in `folder` ("" or ending in `/`), and what else is there."""
    path, at, nbytes = place(folder + METADATA)
    described = _describe(bytes(read_at(path, at, nbytes)), folder + METADATA)
    found = Distributed(others=list(described.objects))
    finder = _Payloads(place, folder)
    for name, (dtype, shape, chunks) in described.tensors.items():
        if not of_model(name):
            found.others.append(name)
            continue
        check_cover(name, shape, chunks, folder + METADATA)
        tiles = []
        for chunk in chunks:
            blob = described.blobs.get((name, chunk.offsets))
            if blob is None:
                raise Fault("bad-metadata", f"`{folder}{METADATA}` does not say where the part of `{name}` at {list(chunk.offsets)} is")
            tiles.append(Tile(chunk.offsets, finder.window(name, dtype, chunk.sizes, blob)))
        window = tiled(shape, dtype, tiles) if tiles else Window(path, at, shape, row_major(shape), dtype)
        found.entries.append(Entry(name, folder, window))
    return found


def of_model(name: str) -> bool:
    """Whether a stored tensor is one of the model's."""
    return _NOT_WEIGHTS.match(name) is None


@dataclass(frozen=True)
class _Known:
    """A blob that was read in full. `head`: its bytes before the header of the elements' record, its pickle among them, so
    that a blob which begins with the same has the same `strides`, in elements. `at`: where its first element is."""

    head: bytes
    record_at: int
    record_bytes: int
    at: int
    strides: tuple[int, ...]


class _Payloads:
    """Where in its blob a chunk's elements are, and with which strides: torch saves views as they lie in memory.

    Blobs of one make begin with the same bytes, so few are read in full; of the others the beginning is compared."""

    def __init__(self, place: Stretch, folder: str) -> None:
        self._place, self._folder = place, folder
        self._places: dict[str, tuple[str, int, int]] = {}
        self._known: dict[tuple[str, int, str, tuple[int, ...]], list[_Known]] = {}

    def window(self, name: str, dtype: str, shape: tuple[int, ...], blob: _Blob) -> Window:
        path, begin, nbytes = self._file(blob.file, name)
        if blob.at + blob.nbytes > nbytes:
            raise Fault(
                "truncated-file", f"`{self._folder}{blob.file}` has {nbytes:,} bytes, `{name}` in it ends at byte {blob.at + blob.nbytes:,}",
                help="download or copy it again",
            )  # fmt: skip
        makes = self._known.setdefault((blob.file, blob.nbytes, dtype, shape), [])
        known = next((each for each in makes if _begins_as(path, begin + blob.at, each)), None)
        if known is None:
            known = self._find(name, dtype, shape, blob, path, begin)
            makes[_MAKES:] = []
            makes.insert(0, known)
        return Window(path, begin + blob.at + known.at, shape, known.strides, dtype)

    def _file(self, file: str, name: str) -> tuple[str, int, int]:
        if file not in self._places:
            try:
                self._places[file] = self._place(self._folder + file)
            except (KeyError, OSError, ValueError):
                raise Fault("missing-file", f"`{self._folder}{file}` is not there, and holds a part of `{name}`", help="download or copy it again") from None
        return self._places[file]

    def _find(self, name: str, dtype: str, shape: tuple[int, ...], blob: _Blob, path: str, begin: int) -> _Known:
        file, start = f"{self._folder}{blob.file}", begin + blob.at
        content = read_torch_file(path, file, start, blob.nbytes)
        window = content.entries[0].window if len(content.entries) == 1 else None
        if window is None or (window.dtype, window.shape) != (dtype, shape):
            has = f"{window.dtype} {list(window.shape)}" if window is not None else "no single tensor"
            raise Fault(
                "bad-metadata", f"`{name}` is said to have a part of {dtype} {list(shape)} in `{file}`, and there is {has}",
                help="the files are not of one checkpoint: copy it again",
            )  # fmt: skip
        pickled, held = content.records["data.pkl"], next((r for r in content.records.values() if r.at <= window.at < r.at + r.nbytes), None)
        if held is None or held.header_at < pickled.at + pickled.nbytes or held.header_at - start > _HEAD_BYTES:
            return _Known(b"", 0, 0, window.at - start, window.strides)  # no other blob is taken to be as this one
        head = bytes(read_at(path, start, held.header_at - start))
        return _Known(head, held.at - start, held.nbytes, window.at - start, window.strides)


def _begins_as(path: str, start: int, known: _Known) -> bool:
    """Whether the blob at `start` has the pickle of one that is known, and the record of its elements in the same place."""
    if not known.head:
        return False
    begun = bytes(read_at(path, start, known.record_at))
    header = begun[len(known.head) :]
    if not begun.startswith(known.head):
        return False
    mark, _, flags, method, _, _, _, packed, size, named, extra = LOCAL.unpack_from(header)
    return (
        mark == b"PK\3\4" and not method and not flags & 0x2041 and LOCAL.size + named + extra == len(header)
        and header[LOCAL.size : LOCAL.size + named].endswith(b"/data/0")
        and (flags & 8 != 0 or all(n in (known.record_bytes, 0xFFFFFFFF) for n in (packed, size)))
    )  # fmt: skip


def _describe(data: bytes, file: str) -> _Described:
    top = read_pickle(data, file, [])
    try:
        said = _state(top, "Metadata")
        tensors: dict[str, tuple[str, tuple[int, ...], tuple[Block, ...]]] = {}
        objects: list[str] = []
        for name, kind in said["state_dict_metadata"].items():
            if not isinstance(name, str) or not is_text(name):
                raise Malformed("a name that is no text")
            if _is(kind, "BytesStorageMetadata"):
                objects.append(name)
            else:
                tensors[name] = _tensor(name, _state(kind, "TensorStorageMetadata"))
        blobs = dict(_located(key, info) for key, info in said["storage_data"].items())
        return _Described(tensors, tuple(objects), blobs)
    except (Malformed, KeyError, TypeError, ValueError, AttributeError, IndexError) as problem:
        reason = str(problem) if isinstance(problem, Malformed) else f"{type(problem).__name__}"
        raise Fault("bad-metadata", f"`{file}` is damaged, or of a release that is not known here: {reason}") from None


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, Stray) and value.name.rpartition(".")[2].endswith(kind)


def _state(value: Any, kind: str) -> dict[str, Any]:
    """The attributes of an instance of the class `kind`, of whatever module."""
    if not _is(value, kind) or not isinstance(value.state, dict):
        raise Malformed(f"{kind} expected")
    return value.state


def _tensor(name: str, said: dict[str, Any]) -> tuple[str, tuple[int, ...], tuple[Block, ...]]:
    properties = said["properties"].state
    kind = properties[0] if isinstance(properties, tuple) else properties["dtype"]
    if not isinstance(kind, Token) or kind.name.removeprefix("torch.") not in ITEM_BYTES:
        raise Malformed(f"`{name}` has no dtype that is known here")
    chunks = tuple(
        Block(_numbers(c["offsets"]), _numbers(c["sizes"])) for c in (_state(chunk, "ChunkStorageMetadata") for chunk in said["chunks"])
    )
    return kind.name.removeprefix("torch."), _numbers(said["size"]), chunks


def _located(key: Any, info: Any) -> tuple[tuple[str, tuple[int, ...] | None], _Blob]:
    index, where = _state(key, "MetadataIndex"), _state(info, "_StorageInfo")
    offset = index.get("offset")
    file = where["relative_path"]
    if not isinstance(file, str) or not is_text(file) or not isinstance(index["fqn"], str):
        raise Malformed("a part without a file")
    if file.startswith("/") or ".." in file.split("/") or "\0" in file or not file:
        raise Malformed(f"a part lies in {file!r}, which is not a file beside it")
    if where.get("transform_descriptors"):
        raise Malformed("parts are compressed or encrypted")
    at, nbytes = _numbers((where["offset"], where["length"]))
    return (index["fqn"], None if offset is None else _numbers(offset)), _Blob(file, at, nbytes)


def _numbers(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple) or not are_extents(values):
        raise Malformed("sizes or offsets that are not a few whole numbers")
    return tuple(values)


def read_common(place: Stretch, folder: str) -> Any:
    """What the checkpoint in `folder` holds beside its tensors: `common.pt`, or its entry among the blobs. None if neither
    is there. Objects of classes are `Stray`: nothing is made of them."""
    try:
        path, at, nbytes = place(folder + COMMON)
        return read_value(path, folder + COMMON, at, nbytes, [])[1]
    except (KeyError, OSError):
        pass
    try:
        path, at, nbytes = place(folder + METADATA)
        blob = _describe(bytes(read_at(path, at, nbytes)), folder + METADATA).blobs.get((COMMON_ENTRY, None))
        if blob is None:
            return None
        path, at, _ = place(folder + blob.file)
    except (KeyError, OSError, ValueError):
        return None
    held = read_value(path, folder + blob.file, at + blob.at, blob.nbytes, [])[1]
    return held[0] if isinstance(held, list) and len(held) == 1 else held
