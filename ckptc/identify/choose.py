"""What to convert with: the family, the layouts and the config that fit a checkpoint, and whose settings are whose."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

from ..choices.settings import of_layout, of_model
from ..choices.stage_text import Said
from ..choices.stages import stages_of_layout, stages_of_run
from ..compiler.algebra.spell import format_of
from ..compiler.identify.detect import stray_files
from ..compiler.identify.infer import infer_from
from ..compiler.identify.match import Found, Names, may_be_absent, ranks_of, stored_tensors, tensors_of, turns_of
from ..compiler.link.flat import Family, FlatLayout
from ..compiler.settle.resolve import Side, resolve
from ..compiler.settle.said import check_said
from ..compiler.settle.sizes import Scalar, Sizes, bind_sizes
from ..compiler.values.stages import Given
from ..compiler.values.walk_expr import calls_through
from ..configs.config_file import read_config
from ..dsl.diagnostic import Diagnostic, MappingError
from ..dsl.nearest import nearest
from ..dsl.tree import Literal, Ref
from ..library import mapping_files as library
from ..library.families import layout_named, to_choose_from
from ..library.signs import signs_of
from ..runtime.checkpoint.checkpoint import Checkpoint
from ..runtime.fault import Fault
from ..runtime.files.indexed import by_index
from ..runtime.formats.nemo.archive import CONFIG, unwrap
from ..runtime.formats.registry import format_named
from ..runtime.formats.runs.run_arguments import place_of_arguments, said_order, said_version
from ..runtime.words import few
from .config_at_hand import config_layout, config_path, follow_config
from .glance import looked_at
from .identity import families_of, is_strange, said_by
from .recognise import refuse_encoded, refuse_unknown
from .unknown_family import other_family, others_tensors, unknown_family
from .wrapped_names import without_wrappers

SAID = {"unmet-requirement", "other-family", "unsupported-setting", "unknown-value"}  # what a config says against a family


@dataclass(frozen=True)
class Chosen:
    """A family, the source's layout, the layout whose block reads the config, and the config; where they fit, the `sizes` that
    come out under the `given` settings."""

    family: Family
    layout: FlatLayout
    keys_layout: FlatLayout | None
    config: Path | None
    sizes: Sizes | None = None
    given: Mapping[str, Scalar] = field(default_factory=dict)


_Rated: TypeAlias = tuple[tuple[bool, bool, int, int], Chosen, Sizes]


def with_indices(checkpoint: Checkpoint, mapping: str | Path | None) -> Checkpoint:
    """The checkpoint with the parts of stacked tensors as tensors, where a layout has names for them, and without names of
    wrappers, where no layout has these. What is stored as codes and scales is not decoded where a layout has names for the scales."""
    known = library.families(mapping)
    if checkpoint.stored:
        rules = (flat.rule for family in known for layout in family.layouts for flat in layout.rules)
        checkpoint = checkpoint.for_names(format_of(name) for rule in rules for name in rule.names)
    if not format_named(checkpoint.format).in_folder:
        return without_wrappers(checkpoint, known)
    patterns = dict.fromkeys(pattern for family in known for layout in family.layouts for pattern in signs_of(layout).stacked)
    checkpoint = without_wrappers(checkpoint, known, patterns)
    return replace(checkpoint, entries=by_index(checkpoint.entries, patterns))


def found_in(checkpoint: Checkpoint) -> tuple[Found, ...]:
    return Names(Found(e.file, e.name, e.dtype, e.shape) for e in checkpoint.entries)


def choose(
    checkpoint: Checkpoint,
    found: tuple[Found, ...],
    to: str,
    *,
    from_: str | None,
    mapping: str | Path | None,
    family: str | None,
    config: str | Path | None,
    given: Mapping[str, Scalar] = MappingProxyType({}),
    accepted: frozenset[str] = frozenset(),
) -> Chosen:
    """The family and layout that the files and the config fit, with the layout whose config block reads it.

    `given` are settings of which some may be the model's.
    """
    config = follow_config(config)
    if mapping is None:  # whose layouts are for plain weights
        refuse_encoded(checkpoint, config)
    known = library.families(mapping)
    choices = to_choose_from(known, family)
    said, theirs, fits = looked_at(checkpoint, config, known, choices, found, from_)
    if said is not None and not theirs:
        if family is not None:
            raise other_family(said, choices[0], known, fits, found)
        raise unknown_family(said, known, fits, found, mapping)
    choices = list(theirs)
    of_theirs = {each.name for each in choices}
    best, fits = fits[:1], [fit for fit in fits if fit.family.name in of_theirs]
    if said is not None and best and not best[0].missing and (not fits or fits[0].missing):
        raise others_tensors(said, best[0], fits, found)
    able = [f for f in fits if any(x.name == to for x in f.family.layouts)]
    if able and len(able[0].missing) == len(fits[0].missing):  # else the best fit has no such layout, which is what is said then
        fits = able
    strays = stray_files(choices, found, from_) if not fits or fits[0].missing else None
    if strays:
        raise Fault(
            "extra-file", f"{checkpoint.path} holds files that layout `{strays[0].name}` does not have",
            notes=few(strays[1]), help="move them out of the checkpoint's folder",
        )  # fmt: skip
    if not fits or fits[0].missing:
        refuse_unknown(checkpoint, config)
    if not fits and said is not None and is_strange(said, known):
        raise unknown_family(said, known, (), found, mapping)
    if not fits:
        if from_ is not None:
            layout_named(from_, known)
        which = f"layout `{from_}`" if from_ is not None else "any layout that ckptc knows"
        raise Fault(
            "unknown-layout", f"{checkpoint.path} does not look like {which}",
            notes=(f"it holds {', '.join(sorted({f.name for f in found})[:3])} ...", *([f"{said.file} says {said.name}"] if said else [])),
            help="name the layout with --from and the family with --family, or write a mapping and name it with --mapping",
        )  # fmt: skip
    whole = [f for f in fits if len(f.missing) == len(fits[0].missing)]
    error: MappingError | Fault | None = None
    good: list[_Rated] = []
    for fit in whole:
        if good and fit.layout.name != good[0][1].layout.name:
            continue
        try:
            target = fit.family.layout(to)
            keys_layout = config_layout(fit.family, fit.layout, target, config, checkpoint)
            path = config_path(checkpoint, keys_layout, config)
            of_it = of_model(given, fit.family)
            sizes = sizes_of(fit.family, keys_layout, path, of_it, found, fit.layout, accepted)
            good.append((rating(fit.family, fit.layout, sizes, found, target), Chosen(fit.family, fit.layout, keys_layout, path, sizes, of_it), sizes))
        except (MappingError, Fault) as e:
            error = error or e
    if good:
        return _the_one(good, to)
    fit = whole[0]
    keys_layout = config_layout(fit.family, fit.layout, fit.family.layout(to), config, checkpoint)
    if isinstance(error, MappingError) and any(d.code in SAID for d in error.diagnostics):
        raise error
    return Chosen(fit.family, fit.layout, keys_layout, config_path(checkpoint, keys_layout, config))


def rating(family: Family, layout: FlatLayout, sizes: Sizes, found: tuple[Found, ...], target: FlatLayout | None = None) -> tuple[bool, bool, int, int]:
    """How well a family fits a checkpoint that names none; the largest fits best."""
    present = stored_tensors(layout, found)
    exists = present <= sizes.tensors.keys() | sizes.tied.keys()
    placed = exists and has_place(layout, sizes) and (target is None or has_place(target, sizes))
    return placed, not lacking(family, sizes, present), -disagreement(family, sizes), len(family.layouts)


def check_config(config: str | Path | None, family: Family, families: Sequence[Family]) -> None:
    """Raises `Fault` where the config, with no checkpoint at hand, is of a model that the family is not."""
    said = said_by(read_config(config), str(config)) if config is not None else None
    if said is not None and not families_of((family,), said):
        raise other_family(said, family, families, (), ())


def _the_one(good: list[_Rated], to: str) -> Chosen:
    """The best fit. Raises `Fault` where others are as good and mean other files."""
    choices, unsaid = best_of(good, to)
    families = [choice.family for choice in choices]
    if len({family.layout(to).span for family in families}) > 1:
        if all(unsaid.get(family.name) for family in families):
            raise Fault(
                "no-family-says", f"no family can say in layout `{to}` all that this model is",
                notes=tuple(f"{name}: {why}" for name, why in sorted(unsaid.items())),
                help="name the family that is nearest with --family, and with --accept what makes no difference to this model",
            )  # fmt: skip
        names = ", ".join(sorted(family.name for family in families))
        raise Fault("several-families", f"the checkpoint may be of several families: {names}", help=f"name it: --family {families[0].name}")
    return choices[0]


def best_of(good: list[_Rated], to: str) -> tuple[list[Chosen], dict[str, str]]:
    """The best fits; of several, those whose config in layout `to` can say what the source's says, and of these the one that the
    others extend. And what those that were compared cannot say, in words."""
    best = max(rank for rank, _, _ in good)
    equal = [(choice, sizes) for rank, choice, sizes in good if rank == best]
    unsaid = {choice.family.name: _unsaid(choice.family, to, sizes) for choice, sizes in equal} if len(equal) > 1 else {}
    equal = [x for x in equal if not unsaid.get(x[0].family.name)] or equal
    general = [x for x in equal if all(x is y or x[0].family.name in y[0].family.ancestors for y in equal)]
    return [choice for choice, _ in (general or equal)], unsaid


def _unsaid(family: Family, to: str, sizes: Sizes) -> str:
    """What the target's config cannot say of these sizes and settings, in words; empty where it says all."""
    try:
        check_said(resolve(family, to, sizes, {}), family, ())
    except MappingError as error:
        return error.diagnostics[0].title
    return ""


def has_place(layout: FlatLayout, sizes: Sizes) -> bool:
    """Whether some rule of the layout stores each tensor, or the layout leaves it out."""
    stored = {name for flat in layout.rules for name in tensors_of(flat.rule, layout)}
    left_out = {name for item in layout.omits for name in item.tensors}
    return set(sizes.tensors) <= stored | left_out


def lacking(family: Family, sizes: Sizes, present: Collection[str]) -> set[str]:
    """The model's tensors that the files have none of: of several families, the one that has no such tensors is it."""
    return {each.name for each in family.model.tensors if not each.optional and each.name in sizes.tensors} - set(present)


def disagreement(family: Family, sizes: Sizes) -> int:
    """How many settings are not as the family has them by itself: where several families fit, the most alike is it. Fractions,
    such as the epsilon of a norm, are no traits of a family: they differ between its models."""
    own = {a.name for a in family.model.axes}
    return sum(
        isinstance(s.value, Literal) and not isinstance(s.value.value, float) and not s.hint and s.name not in own
        and sizes.values.get(s.name) != s.value.value
        for s in family.model.settings
    )  # fmt: skip


def sizes_of(
    family: Family,
    layout: FlatLayout | None,
    config: Path | None,
    given: Mapping[str, Scalar],
    found: tuple[Found, ...] | None,
    source: FlatLayout,
    accepted: frozenset[str] = frozenset(),
) -> Sizes:
    keys = read_config(config) if config is not None else None
    if keys is not None and layout is not None and (own := layout.config) is not None and Path(own.file).name == CONFIG:
        keys = unwrap(keys)
    if keys is None and layout is not None and found is not None and not given:
        block = layout.config
        raise Fault(
            "no-config", f"the model's sizes are unknown: there is no {block.file if block else 'config'} with the checkpoint",
            help="pass it with --config, for example --config HF_DIR/config.json",
        )  # fmt: skip
    present = stored_tensors(source, found) if found is not None else expected_tensors(family)
    keys_layout = layout if config is not None else None
    spelled = ranks_of(source, found) if found else None
    degrees = {p.name: 1 for p in source.params if p.rank} | spelled if spelled is not None else {}  # not spelled: not divided
    degrees |= {p.name: degrees[p.default.name] for p in source.params if isinstance(p.default, Ref) and p.default.name in degrees}
    infer = infer_from(source, found or (), degrees)
    return bind_sizes(family, keys_layout, keys, given, present.__contains__, str(config or ""), may_be_absent(source), infer, accepted)


def expected_tensors(family: Family) -> frozenset[str]:
    """Without a checkpoint: all tensors but the optional ones and those that are there only if they are stored."""
    settings = {s.name: s.value for s in family.model.settings}
    return frozenset(t.name for t in family.model.tensors if not t.optional and not (t.when and "stored" in calls_through(t.when, settings)))


def said_by_files(checkpoint: Checkpoint, layout: FlatLayout, given: Iterable[str] = ()) -> tuple[dict[str, Scalar], tuple[str, ...]]:
    """Parameters of the source that no shape tells, and the files say in words, with what there is to say about them. Those
    that are `given` are not asked for."""
    known = next((p for p in layout.params if p.name == "qkv_order"), None)
    ranks = checkpoint.format == "pt" and layout.formats is not None and "megatron" in layout.formats.names
    if known is None or len(known.choices) < 2 or known.name in given or not ranks:
        return {}, ()
    order = said_order(checkpoint)
    note = "the rank files have no checkpoint_version, and are read as of version 0, as Megatron-LM reads them (else --from-set qkv_order=groups)"
    return {"qkv_order": order}, (note,) if said_version(checkpoint) is None else ()


def degrees_of(layout: FlatLayout, found: tuple[Found, ...]) -> dict[str, Scalar]:
    """The degrees that a checkpoint's files are of, and the turns that its names spell."""
    return {**(ranks_of(layout, found) or {}), **turns_of(layout, found)}


def as_source(source: Side, targets: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """The target's settings where its layout is the source's: what is not given stays as it is."""
    return {**source.ranks, **{n: v for n, v in source.params.items() if n in source.changed}, **targets}


def stages_kept(source: Side, targets: Mapping[str, Scalar]) -> Given | None:
    """The source's stages, where its target is of the same layout and `targets` ask for no other number of them."""
    divided = source.stages
    if divided is None or targets.get(divided.rank, source.ranks[divided.rank]) != source.ranks[divided.rank]:
        return None
    return divided.whole if targets.get(divided.interleave or "", divided.turns) == divided.turns else None


def said_by_run(checkpoint: Checkpoint, layout: FlatLayout, targets: Mapping[str, Scalar]) -> Said | None:
    """How the run that saved a checkpoint divided its layers, if the target has as many stages as that run."""
    if stages_of_layout(layout) is None or not (place := place_of_arguments(checkpoint)):
        return None
    return stages_of_run(dict(read_config(place)), layout, targets)


def route(
    settings: Mapping[str, Scalar], family: Family, source: FlatLayout, target: FlatLayout, to: str
) -> tuple[dict[str, Scalar], dict[str, Scalar], dict[str, Scalar]]:
    """Settings to where they belong, and of the types declared there: the target's parameters, else the source's, else the model's."""
    targets: dict[str, Scalar] = {}
    sources: dict[str, Scalar] = {}
    model: dict[str, Scalar] = {}
    of_target, of_source = {p.name for p in target.params}, {p.name for p in source.params}
    of_family = {a.name for a in family.model.axes} | {s.name for s in family.model.settings}
    for name, value in settings.items():
        if name in of_target:
            targets[name] = value
        elif name in of_source:
            sources[name] = value
        elif name in of_family:
            model[name] = value
        else:
            near = nearest(name, sorted(of_target | of_source | of_family))
            raise MappingError(
                Diagnostic(
                    "unknown-parameter", f"neither layout `{to}` nor `{source.name}` has a parameter `{name}`, and model `{family.name}` no setting",
                    notes=(f"`{to}` has {', '.join(sorted(of_target)) or 'no parameters'}",), help=f"did you mean `{near}`?" if near else "",
                )
            )  # fmt: skip
    return of_layout(targets, target), of_layout(sources, source), of_model(model, family)
