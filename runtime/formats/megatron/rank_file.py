"""Megatron-LM's rank files, mp_rank_00/model_optim_rng.pt: the dict around a rank's tensors, both ways.

    {"args": Namespace, "checkpoint_version": 3.0, "iteration": 1000, "model": {...}, "optimizer": ..., "rng_state": ...}

With virtual stages `model0`, `model1`, ... stand in the place of `model`. Megatron-core's models are flat; those before it
have a dict for each module of `language_model`. Source: megatron/training/checkpointing.py, megatron/legacy/model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ..torch.tensor_tree import Leaf

RANK_FOLDER = re.compile(r"mp_rank_\d+(_\d+){0,2}")
STATE_FILES = {"optim.pt", "distrib_optim.pt"}  # beside the weights of a rank, the state of its optimizer
ARGS, VERSION = "args", "checkpoint_version"
# Rows of query, key and value by the version of the file: [3, heads, dim], [heads, dim, 3], [heads, 3, dim].
QKV_ORDERS = {"blocks": 0.0, "triples": 1.0, "groups": 3.0}
_CHUNK = re.compile(r"model\d*")
_TURN = re.compile(r"model\d+")  # which also stand in what NeMo trains with virtual stages
_OF_CHUNK = re.compile(r"(model\d+)\.(.+)")
_DEPTH = {"embedding": 3}  # of `language_model.embedding.word_embeddings.weight`, how many keys are dicts of their own
_WEIGHT = re.compile(r"weight\d*")  # grouped experts number theirs
_LOOSE = "word_embeddings_for_head."  # beside `language_model`


def chunks_of(top: Any) -> dict[str, tuple[str, dict[Any, Any]]]:
    """What a rank file has its tensors under: `model`, or a key for each virtual stage, which then stands before the names of
    its tensors. Nothing for other files.

    Virtual stages are so in NeMo's training files too (MegatronGPTModel.on_save_checkpoint)."""
    if not isinstance(top, dict):
        return {}
    form = _CHUNK if {ARGS, VERSION} & top.keys() else _TURN
    found = {key: value for key, value in top.items() if isinstance(key, str) and form.fullmatch(key) and isinstance(value, dict)}
    return {key: ("" if key == "model" else f"{key}.", value) for key, value in found.items()}


def is_of_turn(name: str) -> bool:
    """Whether a tensor's name is that of one in a virtual stage."""
    return _OF_CHUNK.fullmatch(name) is not None


def qkv_order(version: float) -> str | None:
    """How a file of this version has rows of query, key and value; None for a version that there is not. Version 2 is as 3,
    for models that it knows; below it are 0 and 1 alone (fix_query_key_value_ordering of megatron/training/checkpointing.py)."""
    return "groups" if version >= 2 else {0.0: "blocks", 1.0: "triples"}.get(version)


def rank_file(names: Sequence[str], objects: Sequence[str], version: float = 3.0, turns: int = 1) -> dict[str, Any]:
    """The tree of a rank file for the tensors `names`, with a model for each of its `turns`, empty or not. `objects` are name patterns (holes match digits) of modules'
    further state, which is None beside each module that is there."""
    ends = [_pattern(each) for each in objects]
    top: dict[str, Any] = {VERSION: version, "iteration": 0, **({f"model{turn}": {} for turn in range(turns)} if turns > 1 else {"model": {}})}
    for name in names:
        *path, last = _keys(name)
        place = top
        for key in path:
            place = place.setdefault(key, {})
        place[last] = Leaf(name)
        module, _, kind = name.rpartition(".")
        beside = last.removesuffix(kind) + "_extra_state"
        if _WEIGHT.fullmatch(kind) and beside not in place and any(end.fullmatch(f"{module}._extra_state") for end in ends):
            place[beside] = None
    return top


def _keys(name: str) -> list[str]:
    """The keys that lead to a tensor."""
    chunk, rest = found.groups() if (found := _OF_CHUNK.fullmatch(name)) else ("model", name)
    if rest.startswith(_LOOSE):
        return [chunk, *rest.split(".", 1)]
    parts = rest.split(".")
    if parts[0] != "language_model" or len(parts) < 3:
        return [chunk, rest]
    depth = min(_DEPTH.get(parts[1], 2), len(parts) - 1)
    return [chunk, *parts[:depth], ".".join(parts[depth:])]


def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(r"\d+".join(re.escape(part) for part in re.split(r"\{[^}]*\}", text)))
