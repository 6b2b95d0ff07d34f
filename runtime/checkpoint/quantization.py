"""A config in; what it says of how weights are quantized, out. And what tells that tensors may be codes, which is asked of every checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..files.window import Entry

QUANTIZATION = ("quantization_config", "compression_config")  # the keys that say so
KNOWN = ("", "fp8", "fbgemm_fp8", "mxfp4", "compressed-tensors", "modelopt")  # methods whose codes and scales are known
USUAL_BLOCK = (128, 128)
CODES = ("float8_e4m3fn", "float8_e5m2")
SCALE_ENDINGS = ("_scale_inv", "_scale")
PART_ENDINGS = (*SCALE_ENDINGS, "_blocks", "_scales", "_packed", "_shape", "_global_scale", "_scale_2")
_PACKED = ("uint8", "int32")


def may_be_coded(entries: Iterable[Entry]) -> bool:
    """Whether some of the tensors may be codes."""
    return any(entry.dtype in CODES or (entry.dtype in _PACKED and entry.name.endswith(("_blocks", "_packed"))) or entry.name.endswith("_scale_2") for entry in entries)


def quantization(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The `quantization_config` of a model, or of its text model."""
    inner = settings.get("text_config")
    for place in (settings, inner if isinstance(inner, Mapping) else {}):
        for key in QUANTIZATION:
            if isinstance(place.get(key), Mapping) and place[key]:
                found: Mapping[str, Any] = place[key]
                return found
    return {}


def is_known(said: Mapping[str, Any]) -> bool:
    """Whether its method may be one that is decoded."""
    method = said.get("quant_method", "")
    return isinstance(method, str) and method.lower() in KNOWN


def said_block(said: Mapping[str, Any]) -> tuple[int, int]:
    """The block of FP8: `weight_block_size`, or that of compressed-tensors' first group."""
    given = said.get("weight_block_size")
    for weights in _groups(said):
        if given is None:
            structure, size = weights.get("block_structure"), weights.get("group_size")
            given = structure.split("x") if isinstance(structure, str) else structure
            given = [1, size] if given is None and weights.get("strategy") == "group" else given
    try:
        rows, columns = (int(n) for n in given or USUAL_BLOCK)
    except (TypeError, ValueError):
        return USUAL_BLOCK
    return (rows, columns) if rows > 0 and columns > 0 else USUAL_BLOCK


def said_integers(said: Mapping[str, Any]) -> tuple[Mapping[str, Any], ...]:
    """What compressed-tensors' groups of integers say of their weights: `num_bits`, `group_size`, `strategy`, `symmetric`."""
    return tuple(weights for weights in _groups(said) if weights.get("type", "int") == "int")


def _groups(said: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    groups = said.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping):
            yield weights
