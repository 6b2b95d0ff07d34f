"""A linked layout in, what tells it from others at a glance out: names, containers, and what its config says it is."""

from __future__ import annotations

from dataclasses import dataclass

from ..compiler.link.flat import FlatLayout
from ..dsl.tree import Identity, Literal

SIGNS = "_signs"


@dataclass(frozen=True)
class Signs:
    """`spelled`: of all names that rules and ignores can spell, with each run of digits as one mark; `stacked`: the names
    whose tensors may lie stacked in one. `config` is the file that its config block reads, "" for none; a checkpoint of an
    `own` one has it. `says`: for each `is` of the block, the key and its values."""

    formats: tuple[str, ...]
    read_only: bool
    config: str
    own: bool
    says: tuple[tuple[str, tuple[str, ...]], ...]
    stacked: tuple[str, ...]
    spelled: frozenset[str]


def signs_of(layout: FlatLayout) -> Signs:
    """Read once for each layout, which remembers them."""
    if SIGNS not in vars(layout):
        vars(layout)[SIGNS] = _read(layout)
    found: Signs = vars(layout)[SIGNS]
    return found


def _read(layout: FlatLayout) -> Signs:
    from ..compiler.algebra.spell import format_of
    from ..compiler.check.check_files import formats_of
    from ..compiler.identify.match import skeleton_of
    from ..runtime.files.indexed import has_indices

    block, formats = layout.config, formats_of(layout)
    says = [(x.key.dotted, tuple(str(v.value) for v in x.values if isinstance(v, Literal))) for x in (block.items if block else ()) if isinstance(x, Identity)]
    rules = [name for flat in layout.rules for name in flat.rule.names]
    every = [*rules, *(name for ignore in layout.ignores for name in ignore.names)]
    spelled = frozenset(map(skeleton_of, every))
    stacked = dict.fromkeys(text for name in rules if has_indices(text := format_of(name)))
    return Signs(formats.names, formats.read_only, block.file if block else "", layout.own_config is not None, tuple(says), tuple(stacked), spelled)
