"""Refinements of axes in, their parts out: each part with its extent and its step along the axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...dsl.diagnostic import fault
from ...dsl.tree import Refine
from ..values.scope import Scope, either, holds, whole_number
from .sizes import Sizes


@dataclass(frozen=True)
class Part:
    """A part of a refined axis: one step of the part is `step` steps of `axis`."""

    axis: str
    extent: int
    step: int


def refined_parts(refinements: tuple[Refine, ...], sizes: Sizes, scope: Scope) -> Mapping[str, Part]:
    parts: dict[str, Part] = {}
    for refine in refinements:
        if not holds(refine.when, scope):
            continue
        whole = parts.get(refine.axis)
        if whole is None:
            size = sizes.values.get(refine.axis)
            if type(size) is not int or size < 1:
                continue  # an axis that this model leaves without a size has no parts either
            whole = Part(refine.axis, size, 1)
        parts |= split(refine, whole, scope, {}, sizes.origins.get(refine.axis) or "")
    return parts


def split(refine: Refine, whole: Part, scope: Scope, known: Mapping[str, int], origin: str) -> dict[str, Part]:
    """The parts of `whole`, the outermost first. `known` are the extents of those that go without a size here."""
    extents: dict[str, int] = dict(known)
    for setting in refine.sizes:
        if setting.name not in refine.parts:
            raise fault("unknown-part", f"`{setting.name}` is not a part of `{refine.axis}`", setting.span, help=f"its parts are {', '.join(refine.parts)}")
        extents[setting.name] = whole_number(setting.value, scope, f"part `{setting.name}` of `{refine.axis}`")
    open_parts = [p for p in refine.parts if p not in extents]
    sized = 1
    for extent in extents.values():
        sized *= extent
    if len(open_parts) > 1:
        raise fault(
            "unsized-parts", f"{' and '.join(f'`{p}`' for p in open_parts)} have no size: at most one part of `{refine.axis}` goes without", refine.span,
            help=f"give one a size: `with {open_parts[0]} = ...`",
        )  # fmt: skip
    if refine.padded:
        whole = _padded(refine, whole, sized, bool(open_parts))
    if whole.extent % sized or (not open_parts and sized != whole.extent):
        raise fault(
            "uneven-refinement",
            f"`{refine.axis}` ({whole.extent}) does not divide into {' x '.join(f'{n} {e}' for n, e in extents.items())}",
            refine.span,
            notes=tuple(f"{refine.axis} = {whole.extent} comes from {origin}" for _ in (0,) if origin),
            help=_divisors(whole.extent, next(iter(extents), refine.parts[0])),
        )
    parts: dict[str, Part] = {}
    step = whole.step * whole.extent
    for name in refine.parts:
        extent = extents.get(name, whole.extent // sized)
        step //= extent
        parts[name] = Part(whole.axis, extent, step)
    return parts


def _padded(refine: Refine, whole: Part, known: int, has_open: bool) -> Part:
    """The axis rounded up so that its parts fit. Parts of parts cannot be padded, because the padding would lie inside the axis."""
    if whole.axis != refine.axis or whole.step != 1:
        raise fault("padded-part", f"`{refine.axis}` is a part of `{whole.axis}`: only a whole axis can be padded", refine.span, help=f"write `{refine.axis} = (...)` with parts that divide it")
    if not has_open:
        raise fault("nothing-to-pad", f"all parts of `{refine.axis}` have a size, so there is nothing to round up", refine.span, help="leave one part without a size")
    return Part(whole.axis, -(-whole.extent // known) * known, 1)


def _divisors(n: int, name: str) -> str:
    return f"`{name}` may be {either([d for d in range(1, min(n, 512) + 1) if n % d == 0])}"
