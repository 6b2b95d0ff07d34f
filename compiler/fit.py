"""A layout and a checkpoint's headers in; the layout's parameters under which names and shapes are as found, out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import combinations, islice, product
from math import prod
from typing import Any, TypeAlias

from ..dsl.diagnostic import Diagnostic, MappingError
from ..dsl.tree import Hole, Literal, Param, Ref
from .algebra.clash import coordinates
from .algebra.lower import Lowered, lower
from .identify.infer import padded_to
from .identify.match import Found, rank_forms, regex, skeleton, stages_of, turns_of, unmatched
from .link.flat import Family, FlatLayout
from .settle.resolve import Side, resolve
from .settle.sizes import Scalar, Sizes
from .values.lets import fills
from .values.stages import Dealt, Given
from .values.walk_expr import refs

MOST_TRIES = 512  # settings of a layout that are compared with a checkpoint, beyond those that lead nearer
MOST_SPARE = 10_000  # tensors that a rule may expect beyond those that are there, before they are only counted
Values: TypeAlias = dict[str, Scalar]


def fit_source(
    family: Family,
    layout: FlatLayout,
    sizes: Sizes,
    found: Sequence[Found],
    given: Mapping[str, Scalar],
    format: str | None = None,
    stages: Given | None = None,
    bare: Sequence[str] = (),
) -> Side:
    """The layout resolved with the parameters that make names and shapes as found; `given` ones are kept.

    Stages are as the names in the files say, unless `stages` are given. `bare` are files without tensors."""
    fixed: dict[str, Scalar] = dict(given)
    forms = rank_forms(layout, found)
    if len(forms) > 1:
        said = " or ".join(", ".join(f"{rank} = {n}" for rank, n in ranks.items()) for ranks in forms)
        raise MappingError(
            Diagnostic(
                "ambiguous-ranks", f"files such as `{max(f.file for f in found)}` are of {said}, and nothing in them tells which",
                notes=(f"they hold nothing that layout `{layout.name}` has on the first or the last stage alone",), help="is the checkpoint whole?",
            )
        )  # fmt: skip
    for rank, n in (forms[0] if forms else {}).items():
        if fixed.get(rank, n) != n:
            raise MappingError(
                Diagnostic(
                    "degree-disagrees", f"the files are of {rank} = {n}, not {fixed[rank]}",
                    notes=(f"file names count {rank} from 0 to {n - 1}",), help=f"leave {rank} out: it is read from the file names",
                )
            )  # fmt: skip
        fixed[rank] = n
    fixed = turns_of(layout, found) | fixed
    declared = layout.stages
    if stages is None:
        told = stages_of(layout, found, bare)
        if told is not None and declared is not None and _partition(told, sizes.values.get(declared.axis)):
            stages = told  # else binding reports which layers are missing, or beyond the config
    by_turns = declared.interleave if declared else None
    unseen = {by_turns, *_fills(layout)}
    free = [p for p in layout.params if p.name not in fixed and not p.rank and p.name not in unseen]
    seen = _shapes(found)
    strange = {skeleton(name) for name in unmatched(layout, found)}
    least = sum(skeleton(name) in strange for name in seen)  # names that no setting makes the layout spell
    error: MappingError | None = None
    unmet: MappingError | None = None  # the files are these, and the layout does not take such
    best: tuple[int, Side] | None = None

    def wrong(values: Values) -> int | None:
        nonlocal error, unmet, best
        try:
            side = resolve(family, layout.name, sizes, fixed | values, stages=stages, format=format)
            count = _disagreements(side, lower(side), seen)
        except MappingError as e:
            error = error or e
            if unmet is None and _unmet(e) and _fits(family, layout, sizes, fixed | values, stages, seen):
                unmet = e
            return None
        if best is None or count < best[0]:
            best = (count, side)
        return count

    values = _search(_options(free, fixed, padded_to(layout, found, forms[0] if forms else {})), wrong, least)
    if values is not None and best is not None and best[0] == 0:
        side = resolve(family, layout.name, sizes, fixed | values, stages=stages, format=format)
        return _by_files(family, layout, side, fixed | values, len({*bare, *(f.file for f in found)}), stages, format)
    if unmet is not None:
        raise unmet
    for param in (p for p in layout.params if p.name in given and not p.rank):
        rest = {name: value for name, value in fixed.items() if name != param.name}
        for values in islice(_combinations(_options([param, *free], rest, {})), MOST_TRIES):
            with suppress(MappingError):
                side = resolve(family, layout.name, sizes, rest | values, stages=stages, format=format)
                if _disagreements(side, lower(side), seen) == 0:
                    break
        else:
            continue
        raise _disagreeing(layout, param.name, side.params[param.name], given[param.name])
    if best is not None:
        return best[1]  # binding reports what does not fit, against the nearest settings
    assert error is not None
    raise MappingError(*(replace(d, help=d.help.replace("--stages", "--from-stages")) for d in error.diagnostics))


def _by_files(
    family: Family, layout: FlatLayout, side: Side, values: Mapping[str, Scalar], there: int, stages: Given | None, format: str | None
) -> Side:
    """The side, or the same of other ranks where the number of files says so: names and shapes do not tell which numbers
    of ranks exist together. `there`: how many files there are."""
    asked = {name for item in layout.refinements if item.axis in side.ranks for size in item.sizes for name in refs(size.value)}
    free = [p for p in layout.params if p.name in asked and p.name not in values and p.choices]
    if _files(side) == there:
        return side
    for choices in product(*(p.choices for p in free)):
        other = resolve(family, layout.name, side.sizes, {**values, **{p.name: c for p, c in zip(free, choices, strict=True)}}, stages=stages, format=format)
        if _files(other) == there:
            return other
    return side


def _files(side: Side) -> int:
    """How many files the ranks have whose numbers their names spell."""
    spelled = [hole.axis for pattern in side.files[:1] for hole in pattern.parts if isinstance(hole, Hole)]
    return prod(d.extent for d in dict.fromkeys(d for rank in spelled for d in side.digits(rank)))


def _unmet(error: MappingError) -> bool:
    return all(d.code == "unmet-requirement" for d in error.diagnostics)


def _fits(
    family: Family, layout: FlatLayout, sizes: Sizes, params: Mapping[str, Scalar], stages: Given | None, seen: Mapping[str, tuple[int, ...]]
) -> bool:
    """Whether names and shapes are as found, whatever the layout requires."""
    try:
        side = resolve(family, layout.name, sizes, params, stages=stages, required=False)
        return _disagreements(side, lower(side), seen) == 0
    except MappingError:
        return False


def _disagreeing(layout: FlatLayout, name: str, value: Scalar, said: Scalar) -> MappingError:
    return MappingError(
        Diagnostic(
            "setting-disagrees", f"the files are of {name} = {value}, not {said}",
            notes=(f"with {name} = {value} all names and shapes are as layout `{layout.name}` says",),
            help=f"use {value} for {name}, or leave it out: names and shapes tell it",
        )
    )  # fmt: skip


def also_fitting(
    family: Family, layout: FlatLayout, sizes: Sizes, found: Sequence[Found], given: Mapping[str, Scalar], side: Side
) -> Iterator[tuple[str, Side]]:
    """Other values of `asked` parameters that are not `given` and under which names and shapes are as found, too: the
    parameter, and the layout resolved with that value."""
    seen = _shapes(found)
    stages = side.stages.whole if side.stages is not None else None
    for param in layout.params:
        for choice in param.choices if param.asked and param.name not in given else ():
            if choice == side.params[param.name]:
                continue
            try:
                other = resolve(family, layout.name, sizes, {**side.ranks, **side.params, param.name: choice}, stages=stages, format=side.format)
                if _disagreements(other, lower(other), seen) == 0:
                    yield param.name, other
            except MappingError:
                continue


def _fills(layout: FlatLayout) -> Iterator[str]:
    """How the layout fills up what it pads: names and shapes tell nothing of it."""
    for index in [*(x.value for x in layout.lets), *(d for flat in layout.rules for d in flat.rule.dims)]:
        yield from fills(index)


def _partition(stages: Dealt, size: Any) -> bool:
    flat = sorted(i for turns in stages for indices in turns for i in indices)
    return type(size) is int and flat == list(range(size))


def _search(options: list[list[Values]], wrong: Callable[[Values], int | None], least: int) -> Values | None:
    """Settings under which `wrong` is 0, the fewest changes first. Nothing is sought once it is `least`, if that is not 0.

    One change at a time is tried, and then, from the best of them, one change more for as long as that leads nearer. Only
    where this ends without a fit are changes tried together that lead nowhere alone.
    """
    known: dict[frozenset[tuple[str, Scalar]], int | None] = {}

    def count(values: Values) -> int | None:
        key = frozenset(values.items())
        if key not in known:
            known[key] = wrong(values)
        return known[key]

    singles = [option for choices in options for option in choices]
    at: Values = {}
    now = count(at)
    while now != 0:
        before, there = now, at
        for single in singles:
            n = count(there | single)
            if n is not None and (now is None or n < now):
                now, at = n, there | single
            if now == 0:
                break
        if now == before:
            break
    if now == 0:
        while (less := next((rest for name in at if count(rest := {k: v for k, v in at.items() if k != name}) == 0), None)) is not None:
            at = less
        return at
    if least and now == least:
        return None
    return next((values for values in islice(_combinations(options), MOST_TRIES) if count(values) == 0), None)


def _options(free: list[Param], fixed: Mapping[str, Scalar], told: Mapping[str, int]) -> list[list[Values]]:
    """What each parameter may be beside its default. Those that shapes tell are changed to that alone."""
    degree = 1
    for value in fixed.values():
        if isinstance(value, int) and not isinstance(value, bool):
            degree *= max(1, value)
    choices: list[list[Values]] = []
    for param in free:
        default: Any = param.default.value if isinstance(param.default, Literal) else None
        if isinstance(param.default, Ref) and not param.choices:
            default = fixed.get(param.default.name)  # as large as another degree
        options: list[Scalar]
        if param.name in told:
            options = [told[param.name]]
        elif param.choices:
            first = isinstance(param.default, Ref) and param.default.name == param.choices[0]
            options = list(param.choices[1:] if first else param.choices)
        elif isinstance(default, bool):
            options = [not default]
        elif isinstance(default, int):
            options = [d for d in range(1, min(degree, 256) + 1) if degree % d == 0 and d != default]
        else:
            options = []
        choices.append([{param.name: o} for o in options])
    return choices


def _combinations(options: list[list[Values]]) -> Iterator[Values]:
    """Defaults first, then one parameter changed, then more."""
    for count in range(len(options) + 1):
        for some in combinations(options, count):
            for combination in product(*some):
                yield {k: v for part in combination for k, v in part.items()}


def _shapes(found: Sequence[Found]) -> dict[str, tuple[int, ...]]:
    return {f.name: f.shape for f in found}


def _disagreements(side: Side, lowered: tuple[Lowered, ...], seen: Mapping[str, tuple[int, ...]]) -> int:
    """Names that are expected and not there or of another shape, and names that are there and not expected."""
    expected: dict[str, tuple[int, ...]] = {}
    wrong = 0
    for item in lowered:
        stored = item.stored
        named = [i for i, c in enumerate(stored.coords) if "{" + c in stored.name]
        boxes = _without_ranks(stored.boxes, named)
        spare = sum(prod(n for n, _ in b.loops) for b in boxes) - len(seen)
        if spare > MOST_SPARE:
            wrong += spare  # not listed one by one: far more than there are
            continue
        points = {tuple(p[i] for i in named) for p in coordinates(boxes)}
        for point in points:
            at = dict.fromkeys(stored.coords, 0) | {stored.coords[i]: v for i, v in zip(named, point, strict=True)}
            spelled = [p.format(**at) for p in (stored.name, *stored.others)]
            name = next((s for s in spelled if s in seen), None)
            if name is None:
                wrong += not stored.optional
            else:
                expected[name] = stored.shape
                wrong += seen[name] != stored.shape
    extra = [n for n in seen if n not in expected]
    ignored = [regex(p) for p in side.ignored]
    kinds = {skeleton(n): n for n in extra}
    dropped = {k for k, n in kinds.items() if any(r.fullmatch(n) for r in ignored)}
    return wrong + sum(skeleton(n) not in dropped for n in extra)


def _without_ranks(boxes: Any, named: list[int]) -> list[Any]:
    """Boxes with the loops that move no spelled coordinate left out."""
    from ..runtime.plan.plan import Box

    return [Box(b.first, tuple((n, m) for n, m in b.loops if any(m[i] for i in named))) for b in boxes]


