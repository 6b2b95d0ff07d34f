"""Lowering, proving, composing and optimising against the slow reference of the index algebra."""

from __future__ import annotations

from hypothesis import given, settings

from ckptc.compiler.algebra.lower import lower
from ckptc.compiler.algebra.prove import prove
from ckptc.compiler.link.link import link
from ckptc.compiler.pipeline import compile_sides
from ckptc.compiler.settle.resolve import Side, resolve
from ckptc.compiler.settle.sizes import Sizes, Tensor
from ckptc.dsl.parsing.parse import parse

from .made import SIZES, Made, mappings
from .reference import contents
from .slow_plan import run_slowly, tensors_of


def sides(made: Made) -> tuple[Side, Side]:
    (family,) = link([parse(made.text)])
    tensors = {
        t.name: Tensor(t.name, tuple(a.name for a in t.axes), tuple(SIZES[a.name] for a in t.axes))
        for t in family.model.tensors
    }
    sizes = Sizes(SIZES, {}, tensors, {}, frozenset())
    return resolve(family, "one", sizes, made.source), resolve(family, "two", sizes, made.target)


@settings(max_examples=300, deadline=None)
@given(mappings())
def test_a_plan_puts_every_element_where_the_reference_puts_it(made: Made) -> None:
    source, target = sides(made)
    plan = compile_sides(source, target).plan
    have, want = contents(source), contents(target)
    assert tensors_of(plan.source) == {k: shape for k, (shape, _) in have.items()}
    assert tensors_of(plan.target) == {k: shape for k, (shape, _) in want.items()}
    result = run_slowly(plan, {k: values for k, (_, values) in have.items()})
    assert result == {k: values for k, (_, values) in want.items()}


@settings(max_examples=200, deadline=None)
@given(mappings())
def test_the_proof_counts_what_the_reference_holds(made: Made) -> None:
    for side in sides(made):
        proof = prove(side, lower(side))
        held = contents(side)
        assert proof.tensors == len(held)
        assert proof.stored == sum(len(values) for _, values in held.values())
        numbers = {x for _, values in held.values() for x in values if x is not None}
        assert len(numbers) == proof.model
        zeros = sum(values.count(None) for _, values in held.values())
        assert proof.padding >= zeros  # `repeat last` pads with elements
        assert proof.model + proof.copies + proof.padding == proof.stored
