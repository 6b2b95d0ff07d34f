"""NxD's zero1 optimizer state at one data parallel degree in, at another or uncut out: a mapping made from the files.

Each state tensor is a model tensor, which every group has once. Both layouts name it alike; one cuts its rows over
the ranks, the other cuts them otherwise or not at all. All that the compiler proves and the engine does holds here too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, groupby
from math import gcd
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .compiler.link.link import link
from .compiler.pipeline import compile_sides
from .compiler.settle.resolve import resolve
from .compiler.settle.sizes import bind_sizes
from .dsl.tree import (
    AxisDecl,
    AxisRef,
    Files,
    Formats,
    Hole,
    Index,
    Layout,
    Literal,
    Mapping,
    Model,
    Pad,
    Param,
    Pattern,
    Ref,
    Rule,
    Slice,
    Span,
    TensorDecl,
)
from .optimizer.zero1_files import Group, Held, Key, ZeroState, file_of, keys_of, open_zero_state
from .planning.planned import Plan
from .runtime.fault import Fault

if TYPE_CHECKING:
    from .runtime.engine.engine import Report

FORMATS = ("pt", "xser")
RANKS = ("ep", "tp", "pp")  # the axes that tell groups apart


def plan(src: str | Path, *, dp: int | None = None, format: str | None = None) -> Plan:
    """Plan a change of the data parallel degree to `dp`, or to full files, from headers alone."""
    if dp is not None and (type(dp) is not int or dp < 1):
        raise Fault("bad-degree", f"a data parallel degree is a whole number from 1, not {dp}", help="use --dp N, or --full")
    if format not in (None, *FORMATS):
        raise Fault("unknown-format", f"optimizer state does not live in `{format}` files", help=f"--format takes {', '.join(FORMATS)}")
    state = open_zero_state(src)
    if dp is None and not state.dp:
        raise Fault("already-full", f"{state.checkpoint.path} holds full files already", help="use --dp N to cut them")
    family = link([_mapping(state)])[0]
    sizes = bind_sizes(family, None, None, _sizes(state), lambda name: True)
    source = resolve(family, "sharded" if state.dp else "full", sizes, {"dp": state.dp} if state.dp else {})
    target = resolve(family, "sharded" if dp else "full", sizes, {"dp": dp} if dp else {}, format=format or state.checkpoint.format)
    trees = {
        file_of(key, rank, state.experts): group.tree
        for key, group in state.groups.items()
        for rank in (range(dp) if dp else (None,))
    }
    # `step` is the same on all ranks, and compared there: no other tensor is copied
    return Plan(compile_sides(source, target, compare_all=True).plan, state.checkpoint, trees=trees)


def zero1(src: str | Path, dst: str | Path, *, dp: int | None = None, format: str | None = None, **running: Any) -> Report:
    """Write the optimizer state at `src` to the folder `dst`: for `dp` data parallel ranks, or uncut.

    `src` is a checkpoint's folder, or its `optim` folder. Further options are those of `Plan.run`.
    """
    return plan(src, dp=dp, format=format).run(dst, **running)


@dataclass(frozen=True)
class _Place:
    """A tensor of a block of groups, from the group `first` on."""

    tensor: str
    first: Key
    held: Held

    @property
    def axes(self) -> tuple[str, ...]:
        """An axis for each extent that a dimension has anywhere."""
        return tuple(f"d{k}_{n}" for k, n in enumerate(self.held.shape))


def _places(state: ZeroState) -> Iterator[_Place]:
    numbers = count()
    for first in keys_of(state.degrees, _block(state)):
        for held in state.groups[first].tensors:
            yield _Place(f"t{next(numbers)}", first, held)


def _block(state: ZeroState) -> Key:
    """The largest block of ranks such that all groups of a block hold tensors of the same names and shapes."""
    kinds: dict[tuple[Held, ...], int] = {}
    kind = {key: kinds.setdefault(group.tensors, len(kinds)) for key, group in state.groups.items()}

    def step(k: int) -> int:
        slices = [[n for key, n in kind.items() if key[k] == i] for i in range(state.degrees[k])]
        return gcd(*(len(list(run)) for _, run in groupby(slices)))

    return step(0), step(1), step(2)


def _sizes(state: ZeroState) -> dict[str, Any]:
    shapes = {shape for group in state.groups.values() for shape in _shapes(group)}
    return {f"d{k}_{n}": n for shape in shapes for k, n in enumerate(shape)} | dict(zip(RANKS, _block(state), strict=True))


def _shapes(group: Group) -> set[tuple[int, ...]]:
    return {held.shape for held in group.tensors}


def _mapping(state: ZeroState) -> Mapping:
    places = list(_places(state))
    axes = tuple(AxisDecl(name) for name in _sizes(state))
    tensors = tuple(TensorDecl(p.tensor, tuple(AxisDecl(name) for name in (*RANKS, *p.axes))) for p in places)
    model = Model("zero1", None, axes, (), (), (), tensors)
    name = ("ep_rank_", Hole("ep", width=2), "_") if state.experts else ()
    tail = (*name, "tp_rank_", Hole("tp", width=2), "_pp_rank_", Hole("pp", width=2), ".pt")
    dp = Param("dp", Literal(1), rank=True)
    return Mapping((), (model,), (
        _layout("sharded", (dp,), ("dp_rank_", Hole("dp", width=2), "_", *tail), places, True),
        _layout("full", (), ("full_", *tail), places, False),
    ))  # fmt: skip


def _layout(name: str, params: tuple[Param, ...], file: tuple[str | Hole, ...], places: list[_Place], cut: bool) -> Layout:
    rules = tuple(_rule(place, cut and place.held.cut, line) for line, place in enumerate(places, 1))
    return Layout(name, "zero1", (), params, (Files((Pattern(file),)), Formats(FORMATS), *rules))


def _rule(place: _Place, cut: bool, line: int) -> Rule:
    holes = [Hole(rank, offset=Literal(n) if n else None) for rank, n in zip(RANKS, place.first, strict=True)]
    name = Pattern((holes[0], ".", holes[1], ".", holes[2], f":{place.held.name}"))
    dims: list[Index] = [AxisRef(axis) for axis in place.axes]
    if cut:
        dims[0] = Slice(Pad(dims[0], Ref("dp")), "dp")
    return Rule((name,), place.tensor, tuple(dims), dtype=place.held.dtype, span=Span("optimizer state", line))
