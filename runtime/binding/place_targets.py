"""Target tensors to target files: which file each goes to, where in it, and what surrounds it. The format lays them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..files.format import LaidOut, Tensors
from ..formats.registry import format_named
from ..plan.expand import Family, further_copies
from ..plan.plan import Side


def lay_out(
    side: Side,
    targets: tuple[Family, ...],
    names: Sequence[Sequence[str]],
    dtypes: Sequence[str],
    order: Sequence[int],
    max_shard_bytes: int,
    trees: Mapping[str, Any],
    metadata: Mapping[str, str],
) -> LaidOut:
    """All files of the target, and the place of every tensor. `trees` are what files hold around their tensors, by file, and
    `metadata` texts for each."""
    flat = [name for group in names for name in group]
    shapes = [family.stored.shape for family in targets for _ in family.rows]
    places = [
        place
        for family in targets
        for place in (family.spell(family.stored.file) if family.stored.file else [""] * len(family.rows))
    ]
    return format_named(side.format).lay_out(
        Tensors(
            side.layout, flat, dtypes, shapes, places, order, max_shard_bytes, dict(side.params), trees, side.objects, side.bare,
            copies=lambda: [copy for family in targets for copy in further_copies(family)],
            cut=lambda: [alone for family in targets for alone in [_cut_by_shared(side, family)] * len(family.rows)],
            metadata=metadata,
        )
    )  # fmt: skip


def _cut_by_shared(side: Side, family: Family) -> bool:
    """Whether ranks that share what they do not cut, cut this: each then has a part of its own."""
    sharing = {rank for stored in side.stored for rank in stored.shared}
    degrees = dict(side.ranks)
    return not family.stored.shared and any(degrees[rank] > 1 for rank in sharing)
