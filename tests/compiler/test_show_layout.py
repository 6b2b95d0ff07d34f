"""What `show` prints of a layout is a layout: it parses, and it means what the layout means."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from ckptc.compiler.check.check import check
from ckptc.compiler.identify.by_default import settings_by_default
from ckptc.compiler.link.flat import Family, FlatLayout
from ckptc.compiler.link.flatten import Flatten
from ckptc.compiler.link.statements import check_statements
from ckptc.compiler.say.show_layout import shown_layout
from ckptc.compiler.settle.resolve import Side, bind_params, resolve
from ckptc.compiler.settle.sizes import bind_sizes
from ckptc.dsl.parsing.parse import parse
from ckptc.dsl.tree import NOWHERE
from ckptc.library import mapping_files as library

FAMILIES = {family.name: family for family in library.families(None)}
WHOLE = ("decoder", "llama", "qwen3_moe", "deepseek")  # of the others, layouts that are inherited are as these families have them


def shown(family: Family, layout: FlatLayout) -> str:
    return shown_layout(family, layout, bind_params(layout, {}, settings_by_default(family.model)))


@cache
def again(name: str) -> list[tuple[FlatLayout, str, FlatLayout]]:
    """The layouts that are written for a family, each with what is shown of it, and that as it is read."""
    family = FAMILIES[name]
    layouts = [layout for layout in family.layouts if name in WHOLE or layout.name in family.own]
    return [(layout, text, linked(text, family)) for layout in layouts for text in (shown(family, layout),)]


def linked(text: str, family: Family) -> FlatLayout:
    """The one layout of a text, for the model of a family."""
    (layout,) = parse(text).layouts
    check_statements(layout)
    return Flatten(FAMILIES.__getitem__)([(layout, (((), None),), ())], family.model)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_shown_is_read_as_the_same_layout_without_faults(name: str) -> None:
    for layout, text, read in again(name):
        assert shown(FAMILIES[name], read) == text
        assert [x for x in check([alone(name, read)]) if x.severity == "error"] == [], layout.name


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_shown_stores_the_same_tensors(name: str) -> None:
    family = FAMILIES[name]
    sizes = bind_sizes(family, None, None, {axis.name: 4 for axis in family.model.axes}, lambda tensor: True)
    for layout, _, read in again(name):
        assert told(resolve(alone(name, read), layout.name, sizes, {}, required=False)) == told(resolve(family, layout.name, sizes, {}, required=False))


def alone(name: str, layout: FlatLayout) -> Family:
    return Family(name, FAMILIES[name].model, (layout,), frozenset({layout.name}))


def told(side: Side) -> list[object]:
    """What a resolved layout is, but for guards, which hold, and places."""
    rules = [replace(live, rule=replace(live.rule, when=None, where=None), block=0) for live in side.rules]
    state = replace(side.state, when=None) if side.state is not None else None
    stages = replace(side.stages, span=NOWHERE) if side.stages is not None else None
    return [side.ranks, side.parts, side.lets, rules, side.objects, side.files, side.format, side.carry, stages, side.texts, side.omitted, state]
