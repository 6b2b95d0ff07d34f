"""A pass that makes something wrong breaks a law, which says after which pass it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptc.compiler import laws, pipeline
from ckptc.compiler.algebra.compose import Move
from ckptc.compiler.laws import BrokenLawError
from ckptc.compiler.pipeline import PASSES, compile_sides
from ckptc.compiler.work import Work
from ckptc.runtime.plan.plan import Step

from .made import Made, mappings
from .test_algebra import sides


def without(items: tuple[Any, ...], at: int) -> tuple[Any, ...]:
    return (*items[:at], *items[at + 1 :])


def further(items: tuple[Any, ...], at: int) -> tuple[Any, ...]:
    """One that writes one place further on."""
    item = items[at]
    if isinstance(item, Move):
        item = replace(item, at_target=(item.at_target[0] + 1, *item.at_target[1:]))
    else:
        item = replace(item, target_at=item.target_at + 1)
    return (*items[:at], item, *items[at + 1 :])


def from_further(items: tuple[Any, ...], at: int) -> tuple[Any, ...]:
    item: Step = items[at]
    return (*items[:at], replace(item, source_at=item.source_at + 1), *items[at + 1 :]) if item.source is not None else without(items, at)


def backwards(items: tuple[Any, ...], at: int) -> tuple[Any, ...]:
    """One that reads its last element first, or, where it has one alone, none."""
    item: Step = items[at]
    if item.source is None or not item.loops or not item.loops[0].source:
        return without(items, at)
    loop, *rest = item.loops
    turned = replace(item, source_at=item.source_at + (loop.extent - 1) * loop.source, loops=(replace(loop, source=-loop.source), *rest))
    return (*items[:at], turned, *items[at + 1 :])


def scaled(items: tuple[Any, ...], at: int) -> tuple[Any, ...]:
    return (*items[:at], replace(items[at], scale=2.0), *items[at + 1 :])


Break = Callable[[tuple[Any, ...], int], tuple[Any, ...]]
BREAKS: list[tuple[str, str, Break]] = [
    ("composed", "moves", without), ("composed", "moves", further), ("composed", "moves", lambda items, at: (*items, items[at])),
    ("optimised", "steps", without), ("optimised", "steps", further), ("optimised", "steps", from_further), ("optimised", "steps", backwards),
    ("optimised", "steps", scaled), ("optimised", "steps", lambda items, at: (*items, items[at])),
]  # fmt: skip


@pytest.mark.parametrize(("name", "field", "change"), BREAKS, ids=range(len(BREAKS)))
def test_what_a_broken_pass_makes_breaks_a_law(name: str, field: str, change: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    real = {run.__name__: run for run in PASSES}

    @settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(mappings(), st.randoms(use_true_random=False))
    def breaks(made: Made, random: Any) -> None:
        def broken(work: Work) -> Work:
            work = real[name](work)
            items = getattr(work, field)
            return replace(work, **{field: change(items, random.randrange(len(items)))})

        broken.__name__ = name
        monkeypatch.setattr(pipeline, "PASSES", tuple(broken if each == name else run for each, run in real.items()))
        with pytest.raises(BrokenLawError, match=f"after `{name}`"):
            compile_sides(*sides(made))

    breaks()


@pytest.mark.parametrize("number", range(2))
def test_a_proof_that_does_not_add_up_breaks_a_law(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def proved(work: Work) -> Work:
        proofs = list(pipeline.proved(work).proofs)
        proofs[number] = replace(proofs[number], copies=proofs[number].copies + 1)
        return replace(work, proofs=tuple(proofs))

    @settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(mappings())
    def breaks(made: Made) -> None:
        monkeypatch.setattr(pipeline, "PASSES", (PASSES[0], proved, *PASSES[2:]))
        with pytest.raises(BrokenLawError, match="after `proved`"):
            compile_sides(*sides(made))

    breaks()


def test_each_pass_has_laws_and_they_are_only_looked_at_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [run.__name__ for run in PASSES] == [*laws.LAWS]

    def refuse(after: str, work: Work) -> None:
        raise BrokenLawError(after)

    monkeypatch.setattr(laws, "check_laws", refuse)

    @settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(mappings())
    def runs(made: Made) -> None:
        monkeypatch.setenv("CKPTC_LAWS", "1")
        with pytest.raises(BrokenLawError, match="lowered"):
            compile_sides(*sides(made))
        monkeypatch.delenv("CKPTC_LAWS")
        compile_sides(*sides(made))

    runs()
