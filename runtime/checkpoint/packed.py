"""Packed tensors in; the tensors that they mean, with four or eight bits to a number, out.

Found by names and dtypes of what stands beside them. MXFP4 as gpt-oss has it: `X_blocks` [experts, rows, blocks, 16] and
`X_scales`; it means X transposed, as transformers' mxfp4.py (convert_moe_packed_tensors) makes it. compressed-tensors:
`X_packed` and `X_scale`, of integers with `X_shape`, of NVFP4 with `X_global_scale`. Model Optimizer's NVFP4: `X` of bytes,
`X_scale`, `X_scale_2`. Bytes without such scales are left as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, TypeAlias

from ..files.read_window import integers
from ..files.window import Coded, Entry, Tile, Window, at_index, decoded, tiled, with_axes
from .quantization import said_integers

Places: TypeAlias = Mapping[str, Sequence[Entry]]
Spot: TypeAlias = tuple[str, str]  # a file, a name

USUAL_DTYPE = "bfloat16"
ENDINGS = ("_blocks", "_scales", "_packed", "_shape", "_global_scale", "_scale_2")
_FLOAT4 = "float4_e2m1fn"
_GROUPS = {"float8_e4m3fn": 16, "uint8": 32, "float8_e8m0fnu": 32}  # how many four-bit floats have a scale, by its dtype
_POWERS = ("uint8", "float8_e8m0fnu")
_OF_INTEGERS = ("float32", "bfloat16", "float16")
_BITS = (4, 8)  # of integers
_MORE = {"_zero_point": "has a zero point, and only scales are known", "_g_idx": "has its columns in an order of its own, which is not known"}


@dataclass
class Pairs:
    """What tensors become, by where their codes are; where their parts are; and what keeps some from it."""

    made: dict[Spot, Entry] = field(default_factory=dict)
    used: set[Spot] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


class _MisfitError(Exception):
    """What is wrong, on its way to `Pairs.problems`."""


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
        except _MisfitError as why:
            pairs.problems.append(str(why))
    if pairs.made or pairs.problems:
        pairs.problems += absent
        pairs.used |= alone
        pairs.problems += [
            f"`{each.name}` is a scale, and there is no `{each.name.removesuffix('_scales')}_blocks`" for each in entries
            if each.name.endswith("_scales") and each.dtype in _POWERS and f"{each.name.removesuffix('_scales')}_blocks" not in places
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
            return _Packed(entry, meant, (f"{meant}_scale", f"{meant}_shape")) if _bits(said) else None
        scale = near(places, f"{meant}_scale", entry.file)
        more = (f"{meant}_global_scale",) if scale is not None and scale.dtype == "float8_e4m3fn" else ()
        return _Packed(entry, meant, (f"{meant}_scale", *more))
    scale = near(places, f"{name}_scale", entry.file)
    if entry.dtype == "uint8" and scale is not None and scale.dtype == "float8_e4m3fn":
        return _Packed(entry, name, (f"{name}_scale", f"{name}_scale_2"))
    return None


def _bits(said: Mapping[str, Any]) -> tuple[int, ...]:
    """How many bits integers may have."""
    groups = said_integers(said)
    return tuple(n for n in _BITS if not groups or any(group.get("num_bits") == n for group in groups))


def _coded(packed: _Packed, parts: Sequence[Entry], places: Places, said: Mapping[str, Any]) -> Coded:
    entry = packed.entry
    for ending, why in _MORE.items():
        if f"{packed.name}{ending}" in places:
            raise _MisfitError(f"`{entry.name}` {why}")
    before = packed.name.removesuffix("weight")
    if any(f"{before}{each}" in places for each in ("pre_quant_scale", "input_quantizer._pre_quant_scale")):
        raise _MisfitError(f"`{entry.name}` has a `pre_quant_scale` of its activations, which is not known")
    if packed.name != entry.name and packed.name in places:
        raise _MisfitError(f"there is `{entry.name}`, and `{packed.name}` as well")
    if not entry.shape:
        raise _MisfitError(f"`{entry.name}` is one number, and not a tensor of packed ones")
    if entry.name.endswith("_blocks"):
        return _blocks(entry, parts[0])
    return _integers(entry, parts[0], parts[1], said) if entry.dtype == "int32" else _floats(entry, *parts)


def _blocks(entry: Entry, scale: Entry) -> Coded:
    *before, count, size = entry.shape
    _check_dtype(scale, _POWERS)
    if size != 16:
        raise _MisfitError(f"`{entry.name}` has blocks of {size} bytes, and those of MXFP4 have 16")
    _check_shape(entry, scale, entry.shape[:-1])
    return Coded(_side_by_side(entry.window), scale.window, (1, 1, 32), (0, 0, 0), _FLOAT4, (*before, 32 * count), (0, 2, 1))


def _floats(entry: Entry, scale: Entry, second: Entry | None = None) -> Coded:
    _check_dtype(scale, tuple(_GROUPS))
    columns, group = 2 * entry.shape[-1], _GROUPS[scale.dtype]
    if columns % group:
        raise _MisfitError(f"`{entry.name}` has {columns} numbers in a row, and a scale is for {group}")
    _check_shape(entry, scale, (*entry.shape[:-1], columns // group))
    if second is not None:
        _check_dtype(second, ("float32",))
        if prod(second.shape) != 1:
            raise _MisfitError(f"`{second.name}` is {list(second.shape)}, and it is to be one number")
    number = at_index(second.window, (0,) * len(second.shape)) if second is not None else None
    return _grouped(entry, scale.window, _FLOAT4, columns, group, number, entry.name.endswith("_packed"))


def _integers(entry: Entry, scale: Entry, shape: Entry, said: Mapping[str, Any]) -> Coded:
    _check_dtype(scale, _OF_INTEGERS)
    _check_dtype(shape, ("int64", "int32"))
    whole = integers(shape.window) if shape.shape == (len(entry.shape),) else ()
    fit = [bits for bits in _bits(said) if whole and whole[:-1] == entry.shape[:-1] and whole[-1] >= 0 and -(-whole[-1] * bits // 32) == entry.shape[-1]]
    if not fit:
        raise _MisfitError(f"`{shape.name}` says {list(whole)}, and `{entry.name}` is {list(entry.shape)}")
    groups = [group for group in said_integers(said) if group.get("num_bits") == fit[0]]
    if groups and not any(group.get("symmetric", True) for group in groups):
        raise _MisfitError(f"`{entry.name}` has no zero point, and the config says that there is one")
    columns, scales = whole[-1], scale.window
    if prod(scale.shape) == 1:
        scales = with_axes(at_index(scales, (0,) * len(scale.shape)), len(entry.shape))
        return Coded(entry.window, scales, tuple(max(1, n) for n in whole), (0,) * len(whole), f"int{fit[0]}", whole, tuple(range(len(whole))))
    count = scale.shape[-1] if scale.shape else 0
    if scale.shape[:-1] != whole[:-1] or not count or columns % count:
        raise _MisfitError(f"`{scale.name}` is {list(scale.shape)}, and no scales for groups of `{entry.name}`, of {list(whole)}")
    sizes = {group.get("group_size") for group in groups if group.get("strategy", "group") == "group"}
    if count > 1 and groups and columns // count not in sizes:
        raise _MisfitError(f"`{scale.name}` is {list(scale.shape)}, a scale for {columns // count} of a row, and the config says {', '.join(map(str, sorted(sizes, key=str))) or 'one for all'}")
    return _grouped(entry, scales, f"int{fit[0]}", columns, max(1, columns // count))


def _grouped(entry: Entry, scales: Window, kind: str, columns: int, group: int, second: Window | None = None, divided: bool = False) -> Coded:
    """Codes in rows, with a scale for each group of a row."""
    axes = len(entry.shape)
    return Coded(entry.window, scales, (*(1,) * (axes - 1), group), (0,) * axes, kind, (*entry.shape[:-1], columns), tuple(range(axes)), second, divided)


def _check_dtype(scale: Entry, known: tuple[str, ...]) -> None:
    if scale.dtype not in known:
        raise _MisfitError(f"`{scale.name}` is of {scale.dtype}, and is to be of {' or '.join(known)}")


def _check_shape(entry: Entry, scale: Entry, wanted: tuple[int, ...]) -> None:
    if scale.shape != wanted:
        raise _MisfitError(f"`{scale.name}` is {list(scale.shape)}; the scales of `{entry.name}`, {list(entry.shape)}, are {list(wanted)}")


def _side_by_side(window: Window) -> Window:
    """The window with its last two axes as one."""
    *before, count, size = window.shape
    shape = (*before, count * size)
    if not window.tiles and (count <= 1 or window.strides[-2] == size * window.strides[-1]):
        return Window(window.path, window.at, shape, (*window.strides[:-2], window.strides[-1]), window.dtype)
    tiles = []
    for tile in window.tiles or (Tile((0,) * len(window.shape), window),):
        *first, at, within = tile.first
        inner = tile.window
        for k in range(inner.shape[-2]):
            of_block = Window(inner.path, inner.at + k * inner.strides[-2], (*inner.shape[:-2], inner.shape[-1]), (*inner.strides[:-2], inner.strides[-1]), inner.dtype)
            tiles.append(Tile((*first, (at + k) * size + within), of_block))
    return tiled(shape, window.dtype, tiles)
