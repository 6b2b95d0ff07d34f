"""The tensors of a checkpoint in; those that are stored as codes and scales, as the tensors that they mean, out.

Found from the files: `NAME` of an FP8 type and beside it `NAME_scale_inv` (DeepSeek-V3, transformers' `fp8`) or `NAME_scale`
(FBGEMM, compressed-tensors, Model Optimizer), which both multiply. A scale is for a block of the last two axes, for a row, for
a column or for the tensor. The block is the one that the config says, or 128 x 128. Whatever has no scale is left as it is.
Tensors of packed codes are those of `packed`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ..codes.values import SCALES
from ..files.window import Coded, Entry, at_index, decoded, with_axes
from ..words import count
from .packed import USUAL_DTYPE, near, packed_pairs
from .quantization import CODES, SCALE_ENDINGS, is_known, may_be_coded, quantization, said_block

# What a server multiplies activations or its cache with: no part of a weight.
_OF_ACTIVATIONS = re.compile(r"(.*\.)(?:input_(?:global_)?scale(?:_ub)?|activation_scale|[kv]_scale)")


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


def decode_entries(entries: Sequence[Entry], settings: Mapping[str, Any]) -> Unscaled:
    """Each tensor of codes with its scales as one tensor in bfloat16. `settings` are the config's."""
    said = quantization(settings)
    if not may_be_coded(entries) or not is_known(said):
        return Unscaled(tuple(entries))
    places: dict[str, list[Entry]] = {}
    for entry in entries:
        places.setdefault(entry.name, []).append(entry)
    packed = packed_pairs(entries, places, said)
    codes = [entry for entry in entries if entry.dtype in CODES and (entry.file, entry.name) not in packed.used]
    if not packed.made and not packed.problems and not any(scale_names(entry.name, places) for entry in codes):
        return Unscaled(tuple(entries))
    out: dict[tuple[str, str], Entry] = {(entry.file, entry.name): packed.made.get((entry.file, entry.name), entry) for entry in entries}
    used, problems, block = packed.used - packed.made.keys(), list(packed.problems), said_block(said)
    for entry in codes:
        found = scale_names(entry.name, places)
        used |= {(each.file, each.name) for name in found for each in places[name]}
        if len(found) != 1:
            there = " and ".join(f"`{name}`" for name in found)
            problems.append(f"`{entry.name}` has both {there}" if found else f"`{entry.name}` ({entry.dtype}) has no `{entry.name}_scale_inv` and no `{entry.name}_scale`")
            continue
        scale = near(places, found[0], entry.file)
        assert scale is not None
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
    coded = Coded(entry.window, scales, grid, (0,) * len(shape), entry.dtype, shape, tuple(range(len(shape))))
    return Entry(entry.name, entry.file, decoded(coded, USUAL_DTYPE))
