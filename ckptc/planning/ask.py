"""What names and shapes do not tell of a source, and what then has to be asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from ..compiler.pipeline import Compiled
from ..compiler.settle.resolve import Side
from ..dsl.diagnostic import Diagnostic, MappingError
from ..runtime.plan.plan import Coords, Over, Plan, Step


def ask_what_differs(compiled: Compiled, others: Iterable[tuple[str, Side]], again: Callable[[Side], Iterable[Compiled]]) -> None:
    """Raise `MappingError` where the source fits other values of a parameter as well, and the bytes that are written
    would be others. `others` are the parameters and the source with each other value; `again` compiles for one, to the same
    target and to that which it would have: if either is the same, the value makes no difference."""
    source, moves = compiled.source, _moves(compiled.plan)
    fitting: dict[str, list[str]] = {}
    for name, other in others:
        try:
            differ = all(_moves(each.plan) != moves for each in again(other))
        except MappingError:
            continue  # nothing can be written of it
        if differ:
            fitting.setdefault(name, [str(source.params[name])]).append(str(other.params[name]))
    if fitting:
        raise MappingError(*(_question(source.layout, name, values) for name, values in fitting.items()))


def _moves(plan: Plan) -> frozenset[Step]:
    """What the steps do, however their loops are written: equal where the same bytes go to the same places."""
    return frozenset(replace(step, over=_joined(step.over), origin="") for step in plan.steps)


def _joined(loops: tuple[Over, ...]) -> tuple[Over, ...]:
    """The loops, finest last, and those as one that go on where the finer ones end."""
    out: list[Over] = []
    for loop in sorted(loops, key=lambda x: (x.source, x.target, x.source_at, x.target_at)):
        if out and _times(out[-1]) == (loop.source, loop.target, loop.source_at, loop.target_at):
            out[-1] = replace(out[-1], extent=out[-1].extent * loop.extent)
        else:
            out.append(loop)
    return tuple(out)


def _times(loop: Over) -> tuple[Coords, Coords, int, int]:
    """Where a loop would go on."""
    n = loop.extent
    return tuple(n * x for x in loop.source), tuple(n * x for x in loop.target), n * loop.source_at, n * loop.target_at


def _question(layout: str, name: str, values: list[str]) -> Diagnostic:
    several = f"{', '.join(values[:-1])} and {values[-1]}"
    return Diagnostic(
        "not-told", f"the files fit `{name}` of layout `{layout}` as {several}, which mean different bytes",
        notes=("names and shapes are the same under each of them",),
        help=f"say which of them it is: {' or '.join(f'--from-set {name}={value}' for value in values)}",
    )  # fmt: skip
