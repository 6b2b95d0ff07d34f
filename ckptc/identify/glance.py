"""A checkpoint's names and config in; the layouts that fit it, out: where a glance tells, without a look at any other's rules.

Every layout's signs say which names it can spell, digits apart, and which config it reads; a config mostly says of which
model it is. So one family's layouts are read, not all. What these cannot tell is found out by looking at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..compiler.identify.detect import Fit, find_layouts
from ..compiler.identify.match import Found, kinds_of
from ..compiler.link.flat import Family, FlatLayout
from ..library.signs import signs_of
from ..runtime.checkpoint.checkpoint import Checkpoint
from .config_at_hand import places, said_of
from .identity import Said, families_of


def whole_fits(families: Sequence[Family], found: Sequence[Found], layout: str | None = None) -> list[Fit]:
    """Of `find_layouts`, those that lack no name, in the same order."""
    return [fit for fit in find_layouts(families, found, layout, _speller(found)) if not fit.missing]


def looked_at(
    checkpoint: Checkpoint, config: str | Path | None, known: Sequence[Family], choices: Sequence[Family], found: Sequence[Found], layout: str | None
) -> tuple[Said | None, tuple[Family, ...], list[Fit]]:
    """What the config says, the families of `choices` that it may be of, and the fits, best first: their whole ones, or those of
    all `choices` where a glance does not tell."""
    if glance := _at_a_glance(checkpoint, config, known, choices, found, layout):
        return glance
    fits = find_layouts(choices, found, layout)
    said = said_of(checkpoint, config, [fit.layout for fit in fits], known)
    return said, families_of(choices, said), fits


def _at_a_glance(
    checkpoint: Checkpoint, config: str | Path | None, known: Sequence[Family], choices: Sequence[Family], found: Sequence[Found], layout: str | None
) -> tuple[Said | None, tuple[Family, ...], list[Fit]] | None:
    """What the config says, the families that it may be of, and their whole fits; None where all must be looked at.

    One config is at hand for the layouts that spell the names, or there is none for any: else the best fit says which is read.
    """
    may_be = _speller(found)
    able = [each for family in choices for each in family.layouts if layout in (None, each.name) and may_be(each)]
    at_hand = list(places(checkpoint, config, able))
    said = said_of(checkpoint, config, able, ()) if len(at_hand) == 1 else None
    if said is None and list(places(checkpoint, config, (each for family in known for each in family.layouts))) != at_hand[:1]:
        return None
    theirs = families_of(choices, said)
    fits = whole_fits(theirs, found, layout)
    if not fits or list(places(checkpoint, config, [fit.layout for fit in fits])) != at_hand:
        return None
    return said, theirs, fits


def _speller(found: Sequence[Found]) -> Callable[[FlatLayout], bool]:
    """Whether a layout's signs have all these names, digits apart."""
    names = kinds_of(found).keys()
    return lambda layout: names <= signs_of(layout).spelled
