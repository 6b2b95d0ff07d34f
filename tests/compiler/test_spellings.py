"""Two ways to write one index are one plan."""

from __future__ import annotations

import pytest

from ckptc.dsl.diagnostic import MappingError

from .case import Case, compile_case

MAPPING = """# set: layer=5 a=2
# to: two pp=2
model m {{ axes {{ layer a }}  x [layer, a] }}
layout one of m {{ "x" = x [layer, a] }}
layout two of m (rank pp = 1) {{
  files "part_{{pp}}.pt"
  stages layer over pp remainder first
  let every = layer
  let mine = layer/pp
  "x" = x [{index}, a]
}}
"""


def steps(index: str) -> tuple[object, object]:
    plan = compile_case(Case("", MAPPING.format(index=index))).plan
    return [(s.shape, s.boxes) for s in plan.target.stored], [(s.over, s.loops, s.source_at, s.target_at, s.target_first) for s in plan.steps]


@pytest.mark.parametrize("index", ["(layer)/pp", "every/pp", "(every)/pp", "((layer))/pp", "mine", "(mine)"])
def test_the_stages_axis_may_stand_in_parentheses_and_for_a_let(index: str) -> None:
    assert steps(index) == steps("layer/pp")


def test_what_is_more_than_the_stages_axis_is_divided_evenly() -> None:
    with pytest.raises(MappingError, match="does not divide"):
        steps("(layer 1)/pp")
