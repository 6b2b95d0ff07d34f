"""torch_dist checkpoints laid out: `.distcp` files, `.metadata` that says where everything lies, and what stands beside.

A `.distcp` file is blobs back to back, and nothing else. Each is a whole torch file of one tensor: a stacked tensor has a
blob for each of its parts. Sources: torch.distributed.checkpoint.filesystem, megatron.core.dist_checkpointing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...files.file_layout import FileLayout, Region, tensor_bytes
from ...files.shards import hf_shards
from ..torch.pickle_names import Size, Token
from ..torch.pickle_write import Call, Instance, Slot, pickle_value
from ..torch.zip_write import lay_out, without_tensors
from .stacked import StackedTensor, object_keys, stacked_tensors

Tensors = Sequence[tuple[str, str, tuple[int, ...]]]
Objects = Sequence[tuple[str, tuple[tuple[str, int, int], ...]]]
Files = list[tuple[str, FileLayout, list[int]]]  # name, layout, positions of the tensors in its regions
Texts = list[tuple[str, bytes]]

STEM = "archive"  # what torch.save calls a file that is a stream
_META = "torch.distributed.checkpoint.metadata"
_STORAGE_INFO = "torch.distributed.checkpoint.filesystem._StorageInfo"


@dataclass(frozen=True)
class _Place:
    """Where a blob is."""

    file: str
    at: int
    nbytes: int


@dataclass(frozen=True)
class _Distcp:
    """A file of blobs, each with one region."""

    regions: tuple[Region, ...]
    blobs: tuple[FileLayout, ...]
    size: int
    needs_crc: bool = True

    def trail(self, i: int, crc: int) -> bytes:
        return self.blobs[i].trail(0, crc) + self.blobs[i].tail([crc])

    def tail(self, crcs: Sequence[int]) -> bytes:
        return b""


def lay_out_torch_dist(folder: str, tensors: Tensors, objects: Objects, max_shard_bytes: int) -> tuple[Files, Texts]:
    """The files of `tensors` (name, dtype, shape) in `folder`, which is empty or ends in `/`, and the texts beside them.

    Objects, all of them None, are in the first file; it has no tensors then.
    """
    tensor_bytes(tensors)  # refuses unknown dtypes and names that occur twice
    stored = stacked_tensors(tensors)
    blobs = _blobs(stored, len(tensors))
    keys = object_keys(objects)
    nothing = without_tensors([None], STEM)
    places: list[_Place] = [_Place("", 0, 0)] * len(tensors)
    files: Files = []
    for number, shard in enumerate(hf_shards([blob.size for blob in blobs], max_shard_bytes), bool(keys)):
        name = _file(number)
        layout, begins = _lay_out_file([tensors[i] for i in shard], [blobs[i] for i in shard])
        for i, at in zip(shard, begins, strict=True):
            places[i] = _Place(name, at, blobs[i].size)
        files.append((folder + name, layout, shard))
    texts = [(f"{folder}{_file(0)}", nothing * len(keys))] if keys else []
    where = {key: _Place(_file(0), i * len(nothing), len(nothing)) for i, key in enumerate(keys)}
    texts.append((f"{folder}.metadata", _metadata(stored, places, where)))
    return files, [*texts, *texts_beside(folder, "torch_dist")]


def texts_beside(folder: str, backend: str) -> Texts:
    """What every distributed checkpoint of Megatron has: which format it is, and what is not a tensor."""
    kind = {"sharded_backend": backend, "sharded_backend_version": 1, "common_backend": "torch", "common_backend_version": 1}
    common = {"checkpoint_version": 3.0, "iteration": 0}
    return [(f"{folder}common.pt", without_tensors(common, "common")), (f"{folder}metadata.json", json.dumps(kind).encode())]


def _file(number: int) -> str:
    return f"__0_{number}.distcp"


def _blobs(stored: list[StackedTensor], count: int) -> list[FileLayout]:
    """The torch file of each of `count` tensors; those of one stack are one object."""
    blobs: dict[int, FileLayout] = {}
    for tensor in stored:
        layout = lay_out([("", tensor.dtype, tensor.part)], STEM, Slot("0", tensor.dtype, tensor.part))
        blobs.update(dict.fromkeys(tensor.stack.positions, layout))
    return [blobs[i] for i in range(count)]


def _lay_out_file(tensors: Tensors, blobs: list[FileLayout]) -> tuple[FileLayout, list[int]]:
    """A file of blobs, and where each begins."""
    begins: list[int] = []
    regions: list[Region] = []
    at = 0
    for (name, _, shape), blob in zip(tensors, blobs, strict=True):
        begins.append(at)
        regions.append(replace(blob.regions[0], name=name, shape=shape, at=at + blob.regions[0].at))
        at += blob.size
    return _Distcp(tuple(regions), tuple(blobs), at), begins


def _metadata(stored: list[StackedTensor], places: list[_Place], objects: dict[str, _Place]) -> bytes:
    """The pickle of a `Metadata`: what there is, and where it lies."""
    known: dict[str, Instance] = {key: Instance(f"{_META}.BytesStorageMetadata", None) for key in objects}
    lies: dict[Instance, Instance] = {_index(key, None): _storage(place) for key, place in objects.items()}
    for tensor in stored:
        zeros = (0,) * len(tensor.shape)
        chunks: list[Instance] = []
        for index, position in zip(tensor.stack.indices, tensor.stack.positions, strict=True):
            offset = Size((*index, *zeros))
            chunks.append(_state("ChunkStorageMetadata", offsets=offset, sizes=Size(tensor.part)))
            lies[_index(tensor.stack.name, offset)] = _storage(places[position])
        known[tensor.stack.name] = _state(
            "TensorStorageMetadata", properties=_properties(tensor.dtype), size=Size(tensor.whole), chunks=chunks
        )
    return pickle_value(_state("Metadata", state_dict_metadata=known, planner_data=None, storage_data=lies))


def _state(kind: str, **attributes: object) -> Instance:
    return Instance(f"{_META}.{kind}", attributes)


def _index(key: str, offset: Size | None) -> Instance:
    """What `storage_data` has its entries by."""
    where = {} if offset is None else {"offset": offset}
    return _state("MetadataIndex", fqn=key, index=None, **where)


def _storage(place: _Place) -> Instance:
    return Instance(_STORAGE_INFO, {"relative_path": place.file, "offset": place.at, "length": place.nbytes})


def _properties(dtype: str) -> Instance:
    """Of a plain contiguous tensor: dtype, layout, whether it needs gradients, memory format, whether it is pinned."""
    layout = Call("torch.serialization._get_layout", ("torch.strided",))
    contiguous = Call(f"{_META}._MEM_FORMAT_ENCODING", (0,))
    return Instance(f"{_META}.TensorProperties", (Token(f"torch.{dtype}"), layout, False, contiguous, False))
