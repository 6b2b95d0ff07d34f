"""Packed tensors in; the tensors that they mean, with four or eight bits to a number, out.

Found by names and dtypes of what stands beside them. MXFP4 as gpt-oss has it: `X_blocks` [experts, rows, blocks, 16] and
`X_scales`; it means X transposed, as transformers' mxfp4.py (convert_moe_packed_tensors) makes it. compressed-tensors:
`X_packed` and `X_scale`, of integers with `X_shape`, of NVFP4 with `X_global_scale`. Model Optimizer's NVFP4: `X` of bytes,
`X_scale`, `X_scale_2`. Bytes without such scales are left as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ..files.window import Coded, Entry, decoded
from .schemes import POWERS, MisfitError, blocks, floats, packed_integers, said_bits

Places: TypeAlias = Mapping[str, Sequence[Entry]]
Spot: TypeAlias = tuple[str, str]  # a file, a name

USUAL_DTYPE = "bfloat16"
_MORE = {"_zero_point": "has a zero point, and only scales are known", "_g_idx": "has its columns in an order of its own, which is not known"}


@dataclass
class Pairs:
    """What tensors become, by where their codes are; where their parts are; and what keeps some from it."""

    made: dict[Spot, Entry] = field(default_factory=dict)
    used: set[Spot] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Packed:
    """A tensor of codes: what it means is called `name`, and `needs` are the names of its scales."""

    entry: Entry
    name: str
    needs: tuple[str, ...]


def packed_pairs(entries: Sequence[Entry], places: Places, said: Mapping[str, Any]) -> Pairs:
    """All that is packed. `said` is the `quantization_config`."""
    pairs = Pairs()
    if said.get("transform_config"):  # weights are rotated, and activations with them
        return pairs
    absent: list[str] = []
    alone: set[Spot] = set()
    for entry in entries:
        packed = _packed(entry, places, said)
        if packed is None:
            continue
        parts = [near(places, name, entry.file) for name in packed.needs]
        there = [part for part in parts if part is not None]
        if len(there) < len(parts):
            alone |= {(each.file, each.name) for each in there}
            absent.append(f"`{entry.name}` has no " + " and no ".join(f"`{name}`" for name in packed.needs if name not in places))
            continue
        spot = (entry.file, entry.name)
        pairs.used |= {(each.file, each.name) for name in packed.needs for each in places[name]} | {spot}
        try:
            pairs.made[spot] = Entry(packed.name, entry.file, decoded(_coded(packed, there, places, said), USUAL_DTYPE))
        except MisfitError as why:
            pairs.problems.append(str(why))
    if pairs.made or pairs.problems:
        pairs.problems += absent
        pairs.used |= alone
        pairs.problems += [
            f"`{each.name}` is a scale, and there is no `{each.name.removesuffix('_scales')}_blocks`" for each in entries
            if each.name.endswith("_scales") and each.dtype in POWERS and f"{each.name.removesuffix('_scales')}_blocks" not in places
        ]  # fmt: skip
    return pairs


def near(places: Places, name: str, file: str) -> Entry | None:
    """The tensor called `name`: that in `file`, if there is one."""
    found = places.get(name, ())
    return next((each for each in found if each.file == file), found[0] if found else None)


def _packed(entry: Entry, places: Places, said: Mapping[str, Any]) -> _Packed | None:
    """Whether a tensor is one of packed codes. Where the scales are of a dtype that tells of another scheme, it is not."""
    name = entry.name
    if entry.dtype == "uint8" and name.endswith("_blocks") and len(entry.shape) == 4:
        meant = name.removesuffix("_blocks")
        return _Packed(entry, meant, (f"{meant}_scales",))
    if name.endswith("_packed") and entry.dtype in ("int32", "uint8"):
        meant = name.removesuffix("_packed")
        if entry.dtype == "int32":
            return _Packed(entry, meant, (f"{meant}_scale", f"{meant}_shape")) if said_bits(said) else None
        scale = near(places, f"{meant}_scale", entry.file)
        more = (f"{meant}_global_scale",) if scale is not None and scale.dtype == "float8_e4m3fn" else ()
        return _Packed(entry, meant, (f"{meant}_scale", *more))
    scale = near(places, f"{name}_scale", entry.file)
    if entry.dtype == "uint8" and scale is not None and scale.dtype == "float8_e4m3fn":
        return _Packed(entry, name, (f"{name}_scale", f"{name}_scale_2"))
    return None


def _coded(packed: _Packed, parts: Sequence[Entry], places: Places, said: Mapping[str, Any]) -> Coded:
    entry = packed.entry
    for ending, why in _MORE.items():
        if f"{packed.name}{ending}" in places:
            raise MisfitError(f"`{entry.name}` {why}")
    before = packed.name.removesuffix("weight")
    if any(f"{before}{each}" in places for each in ("pre_quant_scale", "input_quantizer._pre_quant_scale")):
        raise MisfitError(f"`{entry.name}` has a `pre_quant_scale` of its activations, which is not known")
    if packed.name != entry.name and packed.name in places:
        raise MisfitError(f"there is `{entry.name}`, and `{packed.name}` as well")
    if not entry.shape:
        raise MisfitError(f"`{entry.name}` is one number, and not a tensor of packed ones")
    if entry.name.endswith("_blocks"):
        return blocks(entry, parts[0])
    return packed_integers(entry, parts[0], parts[1], said) if entry.dtype == "int32" else floats(entry, *parts)
