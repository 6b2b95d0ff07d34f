"""How tensors are spread over shards, what the shards are called, and the index that lists them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from math import prod

from .file_layout import FileLayout, TargetFile
from .format import LaidOut, Tensors
from .window import ITEM_BYTES


def hf_shards(sizes: Sequence[int], max_shard_bytes: int) -> list[list[int]]:
    """Positions grouped greedily in order; a tensor above the limit is a shard of its own, as on the hub."""
    shards: list[list[int]] = []
    current: list[int] = []
    held = 0
    for i, size in enumerate(sizes):
        if size > max_shard_bytes:
            shards.append([i])
            continue
        if held + size > max_shard_bytes:
            shards.append(current)
            current, held = [], 0
        current.append(i)
        held += size
    if current:
        shards.append(current)
    return shards


def shard_names(stem: str, suffix: str, count: int) -> list[str]:
    """`model.safetensors`, or `model-00001-of-0000N.safetensors` and so on where there are several."""
    if count == 1:
        return [f"{stem}.{suffix}"]
    return [f"{stem}-{i + 1:05}-of-{count:05}.{suffix}" for i in range(count)]


def index_json(stem: str, suffix: str, weight_map: Mapping[str, str], total_size: int) -> tuple[str, bytes]:
    """The name and the text of the index file; `total_size` is in bytes of tensor data."""
    index = {"metadata": {"total_size": total_size}, "weight_map": dict(weight_map)}
    text = json.dumps(index, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return f"{stem}.{suffix}.index.json", text.encode()


def by_file(tensors: Tensors, stem: str, suffix: str, one: bool = False) -> tuple[dict[str, list[int]], list[tuple[str, bytes]]]:
    """The numbers of the tensors of each file, and the index, if there is one. Tensors that the layout puts in no file are
    spread over shards, or are in `one`."""
    groups: dict[str, list[int]] = {}
    for i in tensors.order:
        groups.setdefault(tensors.places[i], []).append(i)
    loose = groups.pop("", None)
    if loose is None:
        return groups, []
    sizes = [prod(tensors.shapes[i]) * ITEM_BYTES[tensors.dtypes[i]] for i in loose]
    shards = [list(range(len(loose)))] if one else hf_shards(sizes, tensors.max_shard_bytes)
    weights: dict[str, str] = {}
    for shard, name in zip(shards, shard_names(stem, suffix, len(shards)), strict=True):
        groups[name] = [loose[k] for k in shard]
        weights.update((tensors.names[i], name) for i in groups[name])
    return groups, [index_json(stem, suffix, weights, sum(sizes))] if len(shards) > 1 else []


def lay_out_files(
    tensors: Tensors, stem: str, suffix: str, layout_of: Callable[[str, Sequence[int]], FileLayout], one: bool = False
) -> LaidOut:
    """Files with several tensors each. `layout_of` lays out a file (its name, the numbers of its tensors)."""
    groups, texts = by_file(tensors, stem, suffix, one)
    spots = [(-1, 0)] * len(tensors.names)
    files = []
    for number, (name, members) in enumerate(groups.items()):
        files.append(TargetFile(name, layout_of(name, members), tuple(members)))
        for region, i in enumerate(members):
            spots[i] = (number, region)
    return LaidOut(tuple(files), spots, tuple(texts))
