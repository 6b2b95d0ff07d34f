"""The tensors of a checkpoint in; those that are stored as codes and scales, as the tensors that they mean, out.

Found from the files: `NAME` of an FP8 type and beside it `NAME_scale_inv` (DeepSeek-V3, transformers' `fp8`) or `NAME_scale`
(FBGEMM, compressed-tensors, Model Optimizer), which both multiply. A scale is for a block of the last two axes, for a row, for
a column or for the tensor. The block is the one that the config says, or 128 x 128. Whatever has no scale is left as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ..files.decode_window import CODES, SCALES
from ..files.window import Coded, Entry, Window, at_index, decoded, with_axes
from ..words import count

USUAL_DTYPE = "bfloat16"
USUAL_BLOCK = (128, 128)
KNOWN = ("", "fp8", "fbgemm_fp8", "compressed-tensors", "modelopt")  # methods whose scales are stored so
QUANTIZATION = ("quantization_config", "compression_config")  # the keys that say so
SCALE_ENDINGS = ("_scale_inv", "_scale")
# What a server multiplies activations or its cache with: no part of a weight.
_OF_ACTIVATIONS = re.compile(r"(.*\.)(?:input_scale(?:_ub)?|activation_scale|[kv]_scale)")


@dataclass(frozen=True)
class Unscaled:
    """The tensors as they are meant, what keeps some from being decoded, and the names of scales of activations left out."""

    entries: tuple[Entry, ...]
    problems: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What there is to say of what is left out."""
        shown = ", ".join(self.dropped[:3]) + (", ..." if len(self.dropped) > 3 else "")
        return (f"{count(len(self.dropped), 'scale')} of activations or of the cache, no part of a weight, left out: {shown}",) if self.dropped else ()


@dataclass(frozen=True)
class Decoded:
    """Tensors that are decoded in one way. `block` has the elements of a scale along the last two axes, or "tensor" and the like."""

    codes: str
    scales: str
    block: str
    dtype: str
    tensors: int
    elements: int

    def __str__(self) -> str:
        return (
            f"decoded, not copied: {count(self.tensors, 'tensor')}, {self.elements:,} elements: {self.codes} times {self.scales}, a scale for each {self.block}, "
            f"multiplied in float32 and rounded once to {self.dtype}"
        )


def decoded_in(windows: Iterable[Window | None]) -> tuple[Decoded, ...]:
    """What of the windows is decoded, and how."""
    found: dict[tuple[str, str, str, str], tuple[int, int]] = {}
    for window in windows:
        if window is not None and (coded := window.coded) is not None:
            key = (coded.codes.dtype, coded.scales.dtype, _block(window, coded), window.dtype)
            tensors, elements = found.get(key, (0, 0))
            found[key] = tensors + 1, elements + prod(window.shape)
    return tuple(Decoded(*key, *numbers) for key, numbers in found.items())


def _block(window: Window, coded: Coded) -> str:
    if prod(coded.scales.shape) == 1:
        return "tensor"
    if coded.block[-1] >= window.shape[-1] and all(n == 1 for n in coded.block[:-1]):
        return "row"
    return " x ".join(map(str, coded.block[-2:])) + " block"


def decode_entries(entries: Sequence[Entry], settings: Mapping[str, Any]) -> Unscaled:
    """Each FP8 tensor with its scales as one tensor in bfloat16. `settings` are the config's."""
    if not any(entry.dtype in CODES for entry in entries):
        return Unscaled(tuple(entries))
    said = _quantization(settings)
    method = said.get("quant_method", "")
    if not isinstance(method, str) or method.lower() not in KNOWN:
        return Unscaled(tuple(entries))
    block = said_block(said)
    places: dict[str, list[Entry]] = {}
    for entry in entries:
        places.setdefault(entry.name, []).append(entry)
    if not any(scale_names(entry.name, places) for entry in entries if entry.dtype in CODES):
        return Unscaled(tuple(entries))
    out: dict[tuple[str, str], Entry] = {(entry.file, entry.name): entry for entry in entries}
    used: set[tuple[str, str]] = set()
    problems: list[str] = []
    for entry in entries:
        if entry.dtype not in CODES:
            continue
        found = scale_names(entry.name, places)
        used |= {(each.file, each.name) for name in found for each in places[name]}
        if len(found) != 1:
            there = " and ".join(f"`{name}`" for name in found)
            problems.append(f"`{entry.name}` has both {there}" if found else f"`{entry.name}` ({entry.dtype}) has no `{entry.name}_scale_inv` and no `{entry.name}_scale`")
            continue
        scale = next((each for each in places[found[0]] if each.file == entry.file), places[found[0]][0])
        made = _paired(entry, scale, block, places)
        if isinstance(made, str):
            problems.append(made)
        else:
            out[entry.file, entry.name] = made
    problems += [
        f"`{entry.name}` is a scale, and `{entry.name.removesuffix('_scale_inv')}` is no FP8 tensor" for entry in entries
        if entry.name.endswith("_scale_inv") and (entry.file, entry.name) not in used
    ]  # fmt: skip
    if problems:
        return Unscaled(tuple(entries), tuple(problems))
    dropped = [entry for entry in entries if _OF_ACTIVATIONS.fullmatch(entry.name) and prod(entry.shape) == 1]
    used |= {(entry.file, entry.name) for entry in dropped}
    return Unscaled(tuple(entry for key, entry in out.items() if key not in used), (), tuple(entry.name for entry in dropped))


def scale_names(name: str, places: Mapping[str, Any]) -> list[str]:
    """The tensors that are scales of `name`."""
    return [name + ending for ending in SCALE_ENDINGS if name + ending in places]


def said_block(said: Mapping[str, Any]) -> tuple[int, int]:
    """The block of a `quantization_config`: `weight_block_size`, or that of compressed-tensors' first group."""
    given = said.get("weight_block_size")
    groups = said.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if isinstance(weights, Mapping) and given is None:
            structure, size = weights.get("block_structure"), weights.get("group_size")
            given = structure.split("x") if isinstance(structure, str) else structure
            given = [1, size] if given is None and weights.get("strategy") == "group" else given
    try:
        rows, columns = (int(n) for n in given or USUAL_BLOCK)
    except (TypeError, ValueError):
        return USUAL_BLOCK
    return (rows, columns) if rows > 0 and columns > 0 else USUAL_BLOCK


def _quantization(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    inner = settings.get("text_config")
    for place in (settings, inner if isinstance(inner, Mapping) else {}):
        for key in QUANTIZATION:
            if isinstance(place.get(key), Mapping) and place[key]:
                found: Mapping[str, Any] = place[key]
                return found
    return {}


def _paired(entry: Entry, scale: Entry, block: tuple[int, int], places: Mapping[str, Any]) -> Entry | str:
    """The decoded tensor, or what is wrong."""
    if scale.dtype not in SCALES:
        return f"`{scale.name}` is of {scale.dtype}, and scales are of {', '.join(SCALES)}"
    if f"{entry.name}_zero_point" in places:
        return f"`{entry.name}` has a zero point, and only scales are known"
    shape = entry.shape
    grid = (*(1,) * len(shape), *block)[-len(shape) :] if shape else ()
    wanted = tuple(-(-extent // n) for extent, n in zip(shape, grid, strict=True))
    given, scales = scale.shape, scale.window
    if prod(given) == 1:
        scales = with_axes(at_index(scales, (0,) * len(given)), len(shape))
        grid = tuple(max(1, extent) for extent in shape)
    elif given == shape[:1] and len(shape) == 2:
        scales, grid = with_axes(scales, 1), (1, max(1, shape[1]))
    elif given != wanted:
        if len(given) != len(shape) or any(n not in (1, extent) for n, extent in zip(given, shape, strict=True)):
            return f"`{scale.name}` is {list(scale.shape)}; blocks of {' x '.join(map(str, block))} of `{entry.name}`, {list(shape)}, have scales {list(wanted)}"
        grid = tuple(1 if n == extent else max(1, extent) for n, extent in zip(given, shape, strict=True))
    return Entry(entry.name, entry.file, decoded(entry.window, scales, grid, (0,) * len(shape), USUAL_DTYPE))
