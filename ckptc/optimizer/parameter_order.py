"""Which parameter an optimizer's index means: the order of a rank's parameters, and how param_groups split it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, TypeAlias

from ..runtime.fault import Fault

Key: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True)
class Parameter:
    """A stored tensor of one rank. `pattern` is its rule's name, `name` the first spelling, `spelled` the one found."""

    pattern: str
    name: str
    spelled: str
    shape: tuple[int, ...]
    key: Key
    layer: int | None
    more: tuple[int, ...]  # all numbers that the name spells


Ranks: TypeAlias = dict[Key, list[Parameter]]


@dataclass(frozen=True)
class Split:
    """How an optimizer groups parameters: those that `apart` holds for, by name, come last, in a group of their own."""

    title: str
    apart: Callable[[str], bool] | None

    def groups(self, ranks: Sequence[Parameter]) -> list[list[Parameter]]:
        return self.of(ranks, [p.spelled for p in ranks])

    def of(self, items: Sequence[Any], names: Sequence[str]) -> list[list[Any]]:
        if self.apart is None:
            return [list(items)]
        flags = [self.apart(name) for name in names]
        return [[item for item, flag in zip(items, flags, strict=True) if flag == which] for which in (False, True)]


def _is_bias(name: str) -> bool:
    return "bias" in name


def _is_bias_or_norm(name: str) -> bool:
    return "bias" in name or "norm" in name.lower()


# Source: NxD Training, utils/model_utils.py and setup_optimizer_param_groups of its models.
SPLITS = (
    Split("all in one group", None),
    Split("biases without weight decay", _is_bias),
    Split("biases and norms without weight decay", _is_bias_or_norm),
)


def numbered(groups: Sequence[Sequence[Any]]) -> list[list[int]]:
    """Indices run through the groups."""
    numbers = count()
    return [list(islice(numbers, len(group))) for group in groups]


def find_split(
    held: Mapping[Key, Sequence[tuple[str, tuple[int, ...]]]],
    said: Mapping[Key, tuple[list[list[Any]], Mapping[Any, Any]]],
) -> Split:
    """The way of grouping under which indices and shapes are, on every rank, as the optimizer's files say.

    `held` are the (name, shape) of every rank's parameters in their order. Of two groups, sizes tell which names are
    apart, for the sets to choose from are nested: no two ways fit that would give a parameter different indices.
    """
    for split in SPLITS:
        if all(_fits(split.of(ranks, [name for name, _ in ranks]), *said[key]) for key, ranks in held.items()):
            return split
    key = next(iter(held))
    sizes = ", ".join(str(len(indices)) for indices in said[key][0])
    raise Fault(
        "unknown-order", "the optimizer's indices do not fit the order of the model's parameters",
        notes=(f"tp {key[1]}, pp {key[2]} has {len(held[key])} parameters, its param_groups have {sizes}",
               f"compared were: {', '.join(split.title for split in SPLITS)}"),
        help="convert without --optimizer",
    )  # fmt: skip


def _fits(groups: list[list[tuple[str, tuple[int, ...]]]], params: list[list[Any]], shapes: Mapping[Any, Any]) -> bool:
    order = [shape for group in groups for _, shape in group]
    return numbered(groups) == params and {i: tuple(shape) for i, shape in shapes.items()} == dict(enumerate(order))


def order_like(source: Ranks, target: Ranks) -> Ranks:
    """The target's parameters as the source orders its own: layers ascending, within and around them by name."""
    before: dict[str, int] = {}
    inside: dict[str, int] = {}
    after: dict[str, int] = {}
    for ranks in source.values():
        seen = False
        for p in ranks:
            seen |= p.layer is not None
            place = inside if p.layer is not None else after if seen else before
            place.setdefault(p.pattern, len(place))

    def at(p: Parameter) -> tuple[int, int, int, tuple[int, ...]]:
        if p.layer is not None and p.pattern in inside:
            return 1, p.layer, inside[p.pattern], p.more
        if p.layer is None and (p.pattern in before) != (p.pattern in after):
            return (0, 0, before[p.pattern], p.more) if p.pattern in before else (2, 0, after[p.pattern], p.more)
        raise Fault(
            "unknown-order", f"in which order a rank of the target numbers `{p.name}` is not known",
            notes=("it is known where the target's tensors are named and joined as the source's",),
            help="keep the style and the settings of the source, or convert without --optimizer",
        )  # fmt: skip

    for key, ranks in source.items():
        if sorted(ranks, key=at) != ranks:
            raise Fault("unknown-order", f"the parameters of tp {key[1]}, pp {key[2]} are not in the order of their layers", help="convert without --optimizer")
    return {key: sorted(ranks, key=at) for key, ranks in target.items()}
