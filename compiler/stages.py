"""Pipeline stages: which stage owns which index of an axis, and in which order it numbers them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..dsl.diagnostic import Diagnostic, Label, MappingError
from ..dsl.nearest import nearest
from ..dsl.tree import NOWHERE, Span, Stages
from .scope import either, fault, whole_value

MOST = 2**20  # indices that are listed one by one


@dataclass(frozen=True)
class StageList:
    """`owned[r]` are the indices of `axis` that stage r of `rank` holds, in the order of its local numbers.

    They are dealt out in `turns`, by the parameter `interleave` if the layout has one. Names may spell the turn, as
    {interleave}: local numbers then count within it.
    """

    axis: str
    rank: str
    owned: tuple[tuple[int, ...], ...]
    interleave: str | None = None
    turns: int = 1
    dealt: tuple[tuple[tuple[int, ...], ...], ...] = ()  # by stage and turn; empty where stages were given as they are
    beyond: int = 0  # indices at the end of the last stage that are not divided
    span: Span = NOWHERE

    def by_turns(self, stage: int) -> Sequence[tuple[int, ...]]:
        """What a stage holds, by turns. Of stages that were given: between two turns of a stage others have theirs."""
        indices = self.owned[stage]
        if self.dealt:
            return self.dealt[stage]
        if self.turns == 1:
            return [indices]
        if self.beyond and stage == len(self.owned) - 1:
            *turns, last = replace(self, owned=(indices[: -self.beyond],), beyond=0).by_turns(0)
            return [*turns, (*last, *indices[-self.beyond :])]
        breaks = [0, *(i for i in range(1, len(indices)) if indices[i] != indices[i - 1] + 1), len(indices)]
        if len(breaks) - 1 == self.turns:
            return [indices[a:b] for a, b in itertools.pairwise(breaks)]
        if len(indices) % self.turns:
            raise MappingError(
                Diagnostic(
                    "uneven-turns", f"stage {stage} holds {len(indices)} indices of `{self.axis}`, which are not {self.turns} turns",
                    (Label(self.span),),
                    help=f"give each stage {self.turns} runs of indices, with those of other stages between them",
                )
            )  # fmt: skip
        length = len(indices) // self.turns
        return [indices[i : i + length] for i in range(0, len(indices), length)]


@dataclass(frozen=True)
class StageRun:
    """Stages `first_rank + i`, their local numbers and global indices as loops (extent, by rank, by index, by local)."""

    first_rank: int
    first_index: int
    first_local: int
    loops: tuple[tuple[int, int, int, int], ...]
    turn: int = 0


def split_stages(
    declared: Stages,
    values: Mapping[str, Any],
    ranks: Mapping[str, int],
    params: Mapping[str, Any],
    given: tuple[tuple[int, ...], ...] | None,
    origins: Mapping[str, str],
) -> StageList:
    """Split evenly, with a remainder at one end, interleaved, or as `given`; every index once, no stage empty."""
    whole, count, turns = _size(declared, values), ranks.get(declared.rank), _turns(declared, params)
    beyond = _beyond(declared, values, whole)
    size = whole - beyond
    if count is None:
        near = nearest(declared.rank, list(ranks))
        raise fault("stages-rank", f"stages are divided over `{declared.rank}`, which is not a rank of this layout", declared.span, help=f"did you mean `{near}`?" if near else f"declare it: `rank {declared.rank} = 1`")
    if given is not None:
        given = (*given[:-1], tuple(i for i in given[-1] if i < size or i >= whole)) if given else given
        flat = sorted(i for stage in given for i in stage)
        if len(given) != count or flat != list(range(size)):
            raise MappingError(
                Diagnostic(
                    "wrong-stages",
                    f"the stages given do not hold each of the {size} indices of `{declared.axis}` once over {declared.rank} = {count}",
                    (Label(declared.span),),
                    help=f"give {count} lists that together hold 0 to {size - 1}",
                )
            )
        given = (*given[:-1], (*given[-1], *range(size, whole)))
        return StageList(declared.axis, declared.rank, given, declared.interleave, turns, beyond=beyond, span=declared.span)
    total = count * turns
    base, rest = divmod(size, total)
    if base == 0 or (rest and declared.remainder is None):
        origin = origins.get(declared.axis)
        fits = [d for d in range(1, size + 1) if (size % (d * turns) == 0 if declared.remainder is None else d * turns <= size)]
        span = f"{fits[0]} to {fits[-1]}" if declared.remainder and len(fits) > 2 else either(fits) if fits else ""
        raise MappingError(
            Diagnostic(
                "uneven-stages",
                f"`{declared.axis}` ({size}) does not divide into {total} stages" if base else f"`{declared.axis}` ({size}) cannot fill {total} stages",
                (Label(declared.span, "split into stages here"),),
                ((f"{declared.axis} = {size} comes from {origin}",) if origin else ()) + (f"{total} = {declared.rank} {count}" + (f" x {declared.interleave} {turns}" if turns > 1 else ""),),
                f"use {declared.rank} = {span}" if fits else f"lower {declared.interleave}",
            )
        )
    extra = [rest > 0 and (i < rest if declared.remainder == "first" else i >= total - rest) for i in range(total)]
    dealt: list[list[tuple[int, ...]]] = [[] for _ in range(count)]
    at = 0
    for i in range(total):
        n = base + extra[i]
        dealt[i % count].append(tuple(range(at, at + n)))
        at += n
    dealt[-1][-1] += tuple(range(size, whole))
    owned = tuple(tuple(itertools.chain.from_iterable(parts)) for parts in dealt)
    return StageList(declared.axis, declared.rank, owned, declared.interleave, turns, tuple(map(tuple, dealt)), beyond, declared.span)


def _size(declared: Stages, values: Mapping[str, Any]) -> int:
    size = values.get(declared.axis)
    if not isinstance(size, int) or isinstance(size, bool):
        axes = [n for n, v in values.items() if type(v) is int]
        near = nearest(declared.axis, axes)
        raise fault("stages-axis", f"stages divide `{declared.axis}`, which is not an axis with a size", declared.span, help=f"did you mean `{near}`?" if near else "name an axis of the model that the config gives a size")
    if size > MOST:
        raise fault("too-many-stages", f"`{declared.axis}` ({size}) is too large to be divided into stages", declared.span, help=f"up to {MOST} can be")
    return size


def _beyond(declared: Stages, values: Mapping[str, Any], whole: int) -> int:
    """How many indices at the end are not divided."""
    if declared.beyond is None:
        return 0
    count = values.get(declared.beyond)
    if type(count) is not int or not 0 <= count < whole:
        raise fault("stages-beyond", f"`{declared.beyond}` is {count}, and counts indices of `{declared.axis}` at the end of {whole}", declared.span, help="give it a number from 0 that leaves some to divide")
    return count


def _turns(declared: Stages, params: Mapping[str, Any]) -> int:
    if declared.interleave is None:
        return 1
    if declared.interleave not in params:
        near = nearest(declared.interleave, list(params))
        title = f"stages are interleaved by `{declared.interleave}`, which is not a parameter of this layout"
        raise fault("stages-interleave", title, declared.span, help=f"did you mean `{near}`?" if near else f"declare it: `{declared.interleave} = 1`")
    return whole_value(params[declared.interleave], f"`{declared.interleave}`", declared.span)


def stage_runs(
    stages: StageList, only_count: int | None = None, by_turns: bool = False, picked: tuple[int, ...] | None = None
) -> list[StageRun]:
    """The stages as few loops as their regularity allows; with `only_count`, those stages that own so many.

    `by_turns`: local numbers count within each turn. `picked`: only these indices, numbered as among all.
    """
    wanted = None if picked is None else frozenset(picked)
    singles: list[tuple[int, StageRun]] = []
    for rank, indices in enumerate(stages.owned):
        if only_count is not None and len(indices) != only_count:
            continue
        if by_turns:
            singles.extend((rank, replace(run, turn=turn)) for turn, part in enumerate(stages.by_turns(rank)) for run in _runs_of(rank, part, wanted))
        else:
            singles.extend((rank, run) for run in _runs_of(rank, indices, wanted))
    out: list[StageRun] = []
    while singles:
        rank, run = singles[0]
        chain = [run]
        by_rank = by_index = 0
        for other_rank, other in singles[1:]:
            if other.loops != run.loops or (other.first_local, other.turn) != (run.first_local, run.turn):
                continue
            steps = (other_rank - chain[-1].first_rank, other.first_index - chain[-1].first_index)
            if steps[0] <= 0 or steps[1] <= 0:
                continue
            if len(chain) == 1:
                by_rank, by_index = steps
            elif steps != (by_rank, by_index):
                break
            chain.append(other)
        singles = [s for s in singles if s[1] not in chain]
        loops = ((len(chain), by_rank, by_index, 0), *run.loops) if len(chain) > 1 else run.loops
        out.append(StageRun(run.first_rank, run.first_index, run.first_local, loops, run.turn))
    return out


def _runs_of(rank: int, indices: tuple[int, ...], wanted: frozenset[int] | None) -> list[StageRun]:
    runs: list[tuple[int, int, int]] = []  # local, index, length
    for local, index in enumerate(indices):
        if wanted is not None and index not in wanted:
            continue
        if runs and (local, index) == (runs[-1][0] + runs[-1][2], runs[-1][1] + runs[-1][2]):
            runs[-1] = (runs[-1][0], runs[-1][1], runs[-1][2] + 1)
        else:
            runs.append((local, index, 1))
    lengths = {r[2] for r in runs}
    gaps = {(b[1] - a[1], b[0] - a[0]) for a, b in itertools.pairwise(runs)}
    if len(runs) > 1 and len(lengths) == 1 and len(gaps) == 1 and (gap := gaps.pop())[0] > 0:
        n = runs[0][2]
        return [StageRun(rank, runs[0][1], runs[0][0], ((len(runs), 0, *gap), (n, 0, 1, 1)))]
    return [StageRun(rank, index, local, ((n, 0, 1, 1),)) for local, index, n in runs]
