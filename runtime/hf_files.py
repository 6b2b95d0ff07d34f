"""How tensors are spread over shards, what the shards are called, and the index that lists them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

STEMS = {
    "safetensors": ("model", "safetensors"), "bin": ("pytorch_model", "bin"), "pt": ("pytorch_model", "bin"),
    "nemo": ("model_weights", "ckpt"), "megatron": ("model_optim_rng", "pt"),
}  # fmt: skip


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


def shard_names(container: str, count: int) -> list[str]:
    """`model.safetensors`, or `model-00001-of-0000N.safetensors` and so on where there are several."""
    stem, suffix = STEMS[container]
    if count == 1:
        return [f"{stem}.{suffix}"]
    return [f"{stem}-{i + 1:05}-of-{count:05}.{suffix}" for i in range(count)]


def index_json(container: str, weight_map: Mapping[str, str], total_size: int) -> tuple[str, bytes]:
    """The name and the text of the index file; `total_size` is in bytes of tensor data."""
    stem, suffix = STEMS[container]
    index = {"metadata": {"total_size": total_size}, "weight_map": dict(weight_map)}
    text = json.dumps(index, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    return f"{stem}.{suffix}.index.json", text.encode()
