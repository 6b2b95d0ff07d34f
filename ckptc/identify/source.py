"""A checkpoint, what it was found to be, and what is said of it, in; the layout that it is read as, resolved, out.

Whoever reads a checkpoint as one layout of a family does it here: plans of conversions, and verifying.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..choices.option_names import naming, of_source
from ..choices.settings import of_layout
from ..choices.stage_text import Said
from ..choices.stages import stages_asked
from ..compiler.fit import fit_source
from ..compiler.identify.match import Found
from ..compiler.settle.resolve import Side
from ..compiler.settle.sizes import Scalar, Sizes
from ..compiler.values.stages import Given
from ..hub import open_source
from ..runtime.checkpoint.checkpoint import Checkpoint
from .choose import Chosen, degrees_of, route, said_by_files, sizes_of, with_indices


@dataclass(frozen=True, eq=False)
class Source:
    """`side` is the layout as it was found, and `sizes` are the model's. `given` are the parameters that a person or a file
    says. Of the settings that were to be routed, `targets` are the target's and `model` the model's."""

    side: Side
    sizes: Sizes
    given: Mapping[str, Scalar]
    targets: Mapping[str, Scalar]
    model: Mapping[str, Scalar]
    notes: tuple[str, ...]


def opened(place: str | Path | Checkpoint, mapping: str | Path | None, revision: str | None = None) -> Checkpoint:
    """The checkpoint at a path or on the hub, its tensors called as layouts call them."""
    return with_indices(place if isinstance(place, Checkpoint) else open_source(place, revision), mapping)


def read_source(
    chosen: Chosen,
    checkpoint: Checkpoint,
    found: tuple[Found, ...],
    *,
    to: str,
    settings: Mapping[str, Scalar],
    from_settings: Mapping[str, Scalar] | None,
    from_stages: str | Said | Given | None,
    accepted: frozenset[str],
) -> Source:
    """The source with the parameters that are given or found. Raises `MappingError` or `Fault` that name its own options."""
    family, layout, keys_layout = chosen.family, chosen.layout, chosen.keys_layout
    targets, given, model = route(settings, family, layout, family.layout(to), to)
    with naming(of_source(layout)):
        given |= of_layout(from_settings or {}, layout)
        said, notes = said_by_files(checkpoint, layout, given)
        sizes = chosen.sizes
        if sizes is None or model != chosen.given:
            sizes = sizes_of(family, keys_layout, chosen.config, model, found, layout, accepted)
        if keys_layout is not None and keys_layout.name == layout.name:
            said = {name: value for name, value in sizes.params.items() if name in {p.name for p in layout.params}} | said
        given = said | given
        held, _ = stages_asked(from_stages, layout, degrees_of(layout, found) | given, sizes, "--from-stages")
        side = fit_source(family, layout, sizes, found, given, stages=held, bare=checkpoint.bare)
    return Source(side, sizes, given, targets, model, notes)
