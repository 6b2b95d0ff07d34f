"""The words of a native `convert` in; the plan that it makes, and whether its files call for another, out.

Nothing is written: a script's arguments often mean this or that command, and the files tell which.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..cli.parse import parse
from ..dsl.diagnostic import MappingError
from ..failure import diagnostics
from ..runtime.fault import Fault

if TYPE_CHECKING:
    from ..planning.planned import Plan
    from ..runtime.plan.plan import Over, Side, Step

MEMORY = 512 << 20


def plan_of(words: Sequence[str]) -> Plan:
    """The plan that `ckptc convert` makes of these words, of which the first is `convert`, from headers alone."""
    from .. import api
    from ..cli.convert import CONVERT, asked_of
    from ..hub import find_source

    said = parse(CONVERT, words[1:], "ckptc convert")
    assert said is not None  # no help is asked for
    return api.plan(find_source(said["src"], said["revision"]), **asked_of(said))


def fails_with(words: Sequence[str], codes: Collection[str]) -> bool:
    """Whether the command would end in a fault of one of these kinds, as far as headers tell, and the declared copies of one
    layer if `copies-differ` is among them. Any other fault is left to the command itself."""
    try:
        plan = plan_of(words)
        if "copies-differ" in codes:
            _compare_one_layer(plan)
    except (Fault, MappingError) as error:
        return bool({d.code for d in diagnostics(error)} & {*codes})
    return False


def _compare_one_layer(plan: Plan) -> None:
    """Raises `copies-differ` where the copies of the first layer do. Files have one order, whatever the layer."""
    from ..runtime.binding.bind import bind
    from ..runtime.engine.compare import compare_copies

    assert plan.source is not None
    checks = tuple(_first(check, plan.data.source) for check in plan.data.checks)
    compare_copies(bind(replace(plan.data, checks=checks), plan.source), MEMORY)


def _first(check: Step, side: Side) -> Step:
    """The check for the first value of each loop over what is no rank, such as layers."""
    assert check.source is not None
    ranks = {name for name, _ in side.ranks}
    one, other = side.stored[check.source].coords, side.stored[check.target].coords

    def along_ranks(loop: Over) -> bool:
        return all(not step or name in ranks for coords, steps in ((one, loop.source), (other, loop.target)) for name, step in zip(coords, steps, strict=True))

    return replace(check, over=tuple(loop if along_ranks(loop) else replace(loop, extent=1) for loop in check.over))
