"""Pipeline stages: which stage owns which index of an axis, and in which order it numbers them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

from ...dsl.diagnostic import Diagnostic, Label, MappingError, fault
from ...dsl.nearest import did_you_mean
from ...dsl.tree import NOWHERE, Span, Stages
from .scope import either, whole_value

MOST = 2**20  # indices that are listed one by one
MOST_SAID = 160  # letters of stages that a message suggests

Turns: TypeAlias = tuple[tuple[int, ...], ...]  # the indices of one stage, by turn
Dealt: TypeAlias = tuple[Turns, ...]
# Stages as they are given: for each its indices, or its indices in each turn.
Given: TypeAlias = Sequence[Sequence[int] | Sequence[Sequence[int]]]


@dataclass(frozen=True)
class StageList:
    """Which stage of `rank` holds which indices of `axis`, in the order of its local numbers. A stage may hold none.

    They are dealt out in `turns`, by the parameter `interleave` if the layout has one: `dealt[r][t]` are those that stage r
    has in turn t. Where stages were given without their turns, each has one entry, which `by_turns` divides. Names may
    spell the turn, as {interleave}: local numbers then count within it. `beyond` are the indices at the end that are not
    divided: the stage and turn `beyond_at` has them besides its own.
    """

    axis: str
    rank: str
    dealt: Dealt
    interleave: str | None = None
    turns: int = 1
    beyond: tuple[int, ...] = ()
    beyond_at: tuple[int, int] = (0, 0)
    span: Span = NOWHERE

    @cached_property
    def owned(self) -> tuple[tuple[int, ...], ...]:
        """By stage, all that it holds."""
        return tuple(tuple(itertools.chain.from_iterable(each)) for each in self.whole)

    @cached_property
    def whole(self) -> Dealt:
        """What each stage holds in each turn, as `dealt`, with the indices that are not divided."""
        return tuple(self._with_beyond(stage, turns) for stage, turns in enumerate(self.dealt))

    def by_turns(self, stage: int) -> Turns:
        """The indices of a stage, one tuple for each turn. Of stages that were given without turns, a turn ends where the
        indices are not consecutive: others have theirs between. Raises `MappingError` where that gives other turns."""
        if len(self.dealt[stage]) == self.turns:
            return self.whole[stage]
        (indices,) = self.dealt[stage]
        breaks = [0, *(i for i in range(1, len(indices)) if indices[i] != indices[i - 1] + 1), len(indices)]
        if len(breaks) - 1 != self.turns:
            if len(indices) % self.turns:
                raise MappingError(
                    Diagnostic(
                        "uneven-turns", f"stage {stage} holds {len(indices)} indices of `{self.axis}`, which are not {self.turns} turns",
                        (Label(self.span),),
                        help="say what each stage has in each turn, with `+` between turns: --stages 0-2+5,3-4+6-7",
                    )
                )  # fmt: skip
            breaks = list(range(0, len(indices) + 1, len(indices) // self.turns)) if indices else [0] * (self.turns + 1)
        return self._with_beyond(stage, tuple(indices[a:b] for a, b in itertools.pairwise(breaks)))

    def _with_beyond(self, stage: int, turns: Turns) -> Turns:
        if stage != self.beyond_at[0]:
            return turns
        at = min(self.beyond_at[1], len(turns) - 1)
        return (*turns[:at], (*turns[at], *self.beyond), *turns[at + 1 :])


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
    given: Given | None,
    origins: Mapping[str, str],
) -> StageList:
    """Split evenly, with a remainder at one end, interleaved, or as `given`: there stages may be empty. Every index once."""
    whole, count, turns = _size(declared, values), ranks.get(declared.rank), _turns(declared, params)
    beyond = _beyond(declared, values, whole)
    size = whole - beyond
    if count is None:
        raise fault("stages-rank", f"stages are divided over `{declared.rank}`, which is not a rank of this layout", declared.span, help=did_you_mean(declared.rank, ranks, f"declare it: `rank {declared.rank} = 1`"))
    made = StageList(declared.axis, declared.rank, (), declared.interleave, turns, tuple(range(size, whole)), (count - 1, turns - 1), declared.span)
    if given is not None:
        return _as_given(given, made, count, size)
    total = count * turns
    base, rest = divmod(size, total)
    if base == 0 or (rest and declared.remainder is None):
        raise _uneven(declared, size, count, turns, origins)
    extra = [rest > 0 and (i < rest if declared.remainder == "first" else i >= total - rest) for i in range(total)]
    return replace(made, dealt=deal([base + more for more in extra], count))


def deal(lengths: Sequence[int], count: int) -> Dealt:
    """What `count` stages have, turn by turn, where the chunks have these lengths: chunk t * count + r is turn t of stage r."""
    ends = [0, *itertools.accumulate(lengths)]
    chunks = [tuple(range(a, b)) for a, b in itertools.pairwise(ends)]
    return tuple(tuple(chunks[stage::count]) for stage in range(count))


def _as_given(given: Given, made: StageList, count: int, size: int) -> StageList:
    by_stage = [_turns_of(stage) for stage in given]
    dealt: Dealt = tuple(each if len(each) == made.turns else (tuple(itertools.chain.from_iterable(each)),) for each in by_stage)
    places = [(stage, turn) for stage, turns in enumerate(dealt) for turn, indices in enumerate(turns) if {*made.beyond} & {*indices}]
    divided = tuple(tuple(tuple(i for i in indices if i not in made.beyond) for indices in turns) for turns in dealt)
    flat = sorted(i for turns in divided for indices in turns for i in indices)
    if len(divided) != count or flat != list(range(size)):
        raise MappingError(
            Diagnostic(
                "wrong-stages",
                f"the stages given do not hold each of the {size} indices of `{made.axis}` once over {made.rank} = {count}",
                (Label(made.span),),
                help=f"give {count} lists that together hold 0 to {size - 1}; a list may be empty",
            )
        )
    if not places:
        return replace(made, dealt=divided)
    last = max((turn, stage) for stage, turns in enumerate(divided) for turn, indices in enumerate(turns) if indices)
    if len(places) > 1 or (len(dealt[places[0][0]]) == made.turns and places[0][::-1] < last):
        raise MappingError(
            Diagnostic(
                "beyond-stages", f"`{made.axis}` {' and '.join(map(str, made.beyond))} {'stands' if len(made.beyond) == 1 else 'stand'} after all others, in one stage",
                (Label(made.span),), help="leave it out of the stages: the last one has it then",
            )
        )  # fmt: skip
    stage, turn = places[0]
    return replace(made, dealt=divided, beyond_at=(stage, turn if len(dealt[stage]) == made.turns else made.turns - 1))


def _turns_of(stage: Sequence[int] | Sequence[Sequence[int]]) -> Turns:
    """What a stage is given by turns; one turn where it is given without."""
    turns = [tuple(item) for item in stage if not isinstance(item, int)]
    return tuple(turns) if turns else (tuple(item for item in stage if isinstance(item, int)),)


def _uneven(declared: Stages, size: int, count: int, turns: int, origins: Mapping[str, str]) -> MappingError:
    total, origin = count * turns, origins.get(declared.axis)
    fits = [d for d in range(1, size + 1) if (size % (d * turns) == 0 if declared.remainder is None else d * turns <= size)]
    span = f"{fits[0]} to {fits[-1]}" if declared.remainder and len(fits) > 2 else either(fits) if fits else ""
    way = f"use {declared.rank} = {span}" if fits else f"lower {declared.interleave}"
    base, rest = divmod(size, total)
    uneven = stages_text(deal([base + (i < rest) for i in range(total)], count)) if total <= MOST_SAID else ""
    return MappingError(
        Diagnostic(
            "uneven-stages",
            f"`{declared.axis}` ({size}) does not divide into {total} stages" if base else f"`{declared.axis}` ({size}) cannot fill {total} stages",
            (Label(declared.span, "split into stages here"),),
            ((f"{declared.axis} = {size} comes from {origin}",) if origin else ()) + (f"{total} = {declared.rank} {count}" + (f" x {declared.interleave} {turns}" if turns > 1 else ""),),
            way + (f", or say who has what: --stages {uneven}" if 0 < len(uneven) <= MOST_SAID else ", or say who has what with --stages"),
        )
    )


def stages_text(dealt: Dealt) -> str:
    """Stages as `--stages` takes them: `0-2,3-4`, with `+` between the turns of a stage."""

    def part(indices: tuple[int, ...]) -> str:
        return f"{indices[0]}-{indices[-1]}" if len(indices) > 1 else "".join(map(str, indices))

    return ",".join("+".join(map(part, turns)) for turns in dealt)


def _size(declared: Stages, values: Mapping[str, Any]) -> int:
    size = values.get(declared.axis)
    if not isinstance(size, int) or isinstance(size, bool):
        axes = [n for n, v in values.items() if type(v) is int]
        raise fault("stages-axis", f"stages divide `{declared.axis}`, which is not an axis with a size", declared.span, help=did_you_mean(declared.axis, axes, "name an axis of the model that the config gives a size"))
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
        title = f"stages are interleaved by `{declared.interleave}`, which is not a parameter of this layout"
        raise fault("stages-interleave", title, declared.span, help=did_you_mean(declared.interleave, params, f"declare it: `{declared.interleave} = 1`"))
    return whole_value(params[declared.interleave], f"`{declared.interleave}`", declared.span)


def stage_runs(
    stages: StageList, only_count: int | None = None, by_turns: bool = False, picked: tuple[int, ...] | None = None
) -> list[StageRun]:
    """The stages as few loops as their regularity allows; with `only_count`, those stages that own so many.

    `by_turns`: local numbers count within each turn. If `picked` is given, only these indices are kept, but they are
    numbered as if all were.
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
