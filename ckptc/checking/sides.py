"""Two checkpoints and what is said of them in; both sides resolved, lowered, proved, and found in the files, out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..choices.option_names import naming, of_target
from ..choices.settings import joined
from ..choices.stage_text import Said
from ..choices.stages import stages_asked
from ..compiler.algebra.lower import Lowered, lower, lower_made
from ..compiler.algebra.prove import prove
from ..compiler.algebra.spell import format_of
from ..compiler.fit import fit_source
from ..compiler.identify.match import Found
from ..compiler.link.flat import Family, FlatLayout
from ..compiler.settle.resolve import Side, resolve
from ..compiler.settle.sizes import Scalar, Sizes
from ..compiler.values.stages import Given
from ..dsl.diagnostic import MappingError
from ..identify.choose import choose, degrees_of, found_in, said_by_files, sizes_of
from ..identify.config_at_hand import config_layout, config_path
from ..identify.glance import looked_at
from ..identify.recognise import refuse_encoded
from ..identify.source import opened, read_source
from ..library import mapping_files as library
from ..library.families import to_choose_from
from ..runtime.checking.locate import Located, locate
from ..runtime.checking.overlaps import Rule
from ..runtime.checkpoint.checkpoint import Checkpoint
from ..runtime.fault import Fault
from ..runtime.plan.expand import families


@dataclass(frozen=True)
class Asked:
    """What is said of both checkpoints, as `ckptc.verify` takes it."""

    to: str | None = None
    from_: str | None = None
    mapping: str | Path | None = None
    family: str | None = None
    config: str | Path | None = None
    revision: str | None = None
    stages: str | Said | Given | None = None
    from_stages: str | Said | Given | None = None
    settings: Mapping[str, Scalar] | None = None
    from_settings: Mapping[str, Scalar] | None = None
    accept: Collection[str] = ()


@dataclass(frozen=True, eq=False)
class Read:
    """One checkpoint as one layout: `rules` are of the families of `located`, in this order."""

    checkpoint: Checkpoint
    side: Side
    rules: tuple[Rule, ...]
    located: Located
    lowered: tuple[Lowered, ...]
    given: frozenset[str] = frozenset()  # parameters that were said, by a person or a file


@dataclass(frozen=True, eq=False)
class Sides:
    """Both, with the family they are of. `buffers` are names of spare tensors of the target that are no weights. `told` are
    sizes of axes that the target's config says, and of the source its shapes alone, as another number."""

    family: Family
    source: Read
    target: Read
    sizes: Sizes
    buffers: frozenset[str]
    notes: tuple[str, ...]
    told: Mapping[str, int]


def read_sides(src: str | Path | Checkpoint, dst: str | Path | Checkpoint, asked: Asked, degrees: Mapping[str, Any]) -> Sides:
    """Which layouts and settings both checkpoints have. Raises `Fault` or `MappingError` where one is none that is known."""
    left, right = opened(src, asked.mapping, asked.revision), opened(dst, asked.mapping)
    if asked.mapping is None:
        refuse_encoded(right, None)
    given = joined(asked.settings, degrees)
    sides = _read_sides(left, right, asked, given)
    told = {name: n for name, n in sides.told.items() if name not in given}
    if told and sides.target.located.misshapen:  # such as a vocabulary that the source has with its padding
        with suppress(MappingError, Fault):
            again = _read_sides(left, right, asked, {**given, **told})
            if not again.source.located.misshapen and len(again.target.located.misshapen) < len(sides.target.located.misshapen):
                said = ", ".join(f"{name} = {n}" for name, n in told.items())
                return replace(again, notes=(*again.notes, f"only the target's config tells {said}: what the source has beyond is taken for padding"))
    return sides


def _read_sides(left: Checkpoint, right: Checkpoint, asked: Asked, given: Mapping[str, Scalar]) -> Sides:
    found, theirs = found_in(left), found_in(right)
    to = asked.to or _layout_of(right, theirs, asked)
    accepted = frozenset(asked.accept)
    config = asked.config
    known: dict[str, Any] = {"from_": asked.from_, "mapping": asked.mapping, "family": asked.family, "given": given, "accepted": accepted}
    chosen = choose(left, found, to, config=config, **known)
    if config is None and (chosen.keys_layout is None or chosen.config is None):
        config = _config_beside(right, chosen.family)
        if config is not None:
            chosen = choose(left, found, to, config=config, **known)
    family, target_layout = chosen.family, chosen.family.layout(to)
    own = read_source(
        chosen, left, found, to=to, settings=given, from_settings=asked.from_settings, from_stages=asked.from_stages, accepted=accepted
    )
    source, sizes = own.side, own.sizes
    with naming(of_target):
        told, told_notes = said_by_files(right, target_layout, own.targets)
        config_says, config_notes, axes = _own_settings(right, family, target_layout, theirs, sizes)
        targets = {**told, **config_says, **own.targets}
        there = sizes_of(family, chosen.keys_layout, chosen.config, own.model, theirs, target_layout, accepted)
        owned, _ = stages_asked(asked.stages, target_layout, degrees_of(target_layout, theirs) | targets, there)
        fitted = fit_source(family, target_layout, there, theirs, targets, stages=owned, bare=right.bare)
    target = as_target(family, fitted, source, sizes)
    return Sides(
        family, read(left, source, given=frozenset(own.given)), read(right, target, given=frozenset(targets)), sizes, _buffers(fitted),
        (*left.notes, *right.notes, *own.notes, *map(of_target, told_notes), *config_notes), axes,
    )  # fmt: skip


def as_target(family: Family, fitted: Side, source: Side, sizes: Sizes) -> Side:
    """What a target with these parameters holds of the source's model: what is missing in its files is then missed."""
    try:
        between: dict[str, Any] = {"makes": True, "calculated": source.calculated} if fitted.layout != source.layout else {}
        return resolve(
            family, fitted.layout, sizes, {**fitted.ranks, **fitted.params}, stages=fitted.stages.whole if fitted.stages is not None else None,
            format=fitted.format, required=False, **between,
        )  # fmt: skip
    except MappingError:
        return fitted


def read(checkpoint: Checkpoint, side: Side, given: frozenset[str] = frozenset()) -> Read:
    """A checkpoint under a resolved layout: lowered, proved, and each stored tensor found."""
    lowered = lower(side)
    prove(side, lowered)
    return Read(checkpoint, side, *_found(checkpoint, side, lowered), lowered, given)


def _found(checkpoint: Checkpoint, side: Side, lowered: tuple[Lowered, ...]) -> tuple[tuple[Rule, ...], Located]:
    every = families(tuple(x.stored for x in lowered))
    rules = tuple(Rule(f, x.pieces, x.rule.scale, x.rule.shift, x.rule.copy) for f, x in zip(every, lowered, strict=True))
    return rules, locate(every, checkpoint.entries, [format_of(pattern) for pattern in side.ignored])


def with_made(source: Read, target: Read) -> tuple[Read, tuple[tuple[str, str, tuple[int, ...], tuple[float, ...]], ...]]:
    """The source with the tensors that the target's layout calculates, as further rules of one tensor each; and how they are
    calculated: name, function, shape, numbers."""
    made = target.side.made
    if not made:
        return source, ()
    extra = tuple(lower_made(m) for m in made)
    every = families((*(x.stored for x in source.lowered), *(x.stored for x in extra)))
    rules = tuple(Rule(f, x.pieces, x.rule.scale, x.rule.shift, x.rule.copy) for f, x in zip(every, (*source.lowered, *extra), strict=True))
    located = source.located
    blank: tuple[None, ...] = (None,) * len(extra)
    names = tuple(x.stored.name for x in extra)
    grown = replace(
        located, families=every, entries=(*located.entries, *blank), names=(*located.names, *names), files=(*located.files, *("" for _ in extra))
    )
    how = tuple((x.stored.name, m.function, m.tensor.shape, m.args) for x, m in zip(extra, made, strict=True))
    return replace(source, rules=rules, located=grown), how


def _of(layout: FlatLayout, values: Mapping[str, Any]) -> dict[str, Scalar]:
    names = {p.name for p in layout.params}
    return {name: value for name, value in values.items() if name in names}


def _layout_of(checkpoint: Checkpoint, found: tuple[Found, ...], asked: Asked) -> str:
    """The layout that a checkpoint's names are of."""
    known = library.families(asked.mapping)
    _, _, fits = looked_at(checkpoint, None, known, to_choose_from(known, asked.family), found, None)
    if not fits:
        raise Fault(
            "unknown-layout", f"{checkpoint.path} does not look like any layout that ckptc knows",
            notes=(f"it holds {', '.join(sorted({f.name for f in found})[:3])} ...",), help="name its layout with --to, or compare names alone: ckptc diff",
        )  # fmt: skip
    return fits[0].layout.name


def _config_beside(checkpoint: Checkpoint, family: Family) -> Path | None:
    """A config in the target, where there is none in the source."""
    for layout in family.layouts:
        place = config_path(checkpoint, layout, None)
        if place is not None:
            return place
    return None


def _own_settings(
    checkpoint: Checkpoint, family: Family, layout: FlatLayout, found: tuple[Found, ...], sizes: Sizes
) -> tuple[dict[str, Scalar], tuple[str, ...], dict[str, int]]:
    """The target's parameters that its own config says; notes where that config is of another model than the source's; and
    sizes that it says, and that nothing says of the source."""
    keys_layout = config_layout(family, layout, layout, None, checkpoint)
    place = config_path(checkpoint, keys_layout, None)
    if keys_layout is None or place is None:
        return {}, (), {}
    try:
        own = sizes_of(family, keys_layout, place, {}, found, layout)
    except (MappingError, Fault) as problem:
        title = problem.diagnostics[0].title if isinstance(problem, MappingError) else problem.title
        return {}, (f"the target's own config {place.name} is not one of this model: {title}",), {}
    hints = {s.name for s in family.model.settings if s.hint}
    unused = {a.name for a in family.model.axes} - {axis for tensor in sizes.tensors.values() for axis in tensor.axes}
    said = [n for n, v in own.values.items() if n not in hints | unused and None not in (v, sizes.values.get(n)) and str(place) in own.origins.get(n, "")]
    other = [n for n in said if not _alike(own.values[n], sizes.values[n])]
    open_axes = {n: own.values[n] for n in other if sizes.origins.get(n, "").startswith("the ")}
    notes = tuple(
        f"the target's own config {place.name} says {n} = {own.values[n]}, and the source's {sizes.values[n]}" for n in other if n not in open_axes
    )
    return (_of(layout, own.params) if keys_layout.name == layout.name else {}), notes, open_axes


def _alike(one: Any, two: Any) -> bool:
    return bool(abs(one - two) <= 1e-9 * abs(one)) if type(one) is float and type(two) is float else one == two


def _buffers(side: Side) -> frozenset[str]:
    """Patterns of the names of stored tensors that are no weights."""
    return frozenset(name for item in lower(side) if item.stored.buffer for name in (item.stored.name, *item.stored.others))
