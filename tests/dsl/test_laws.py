"""Laws: formatting is the inverse of parsing, and nothing but a diagnostic leaves the parser."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptc.dsl import MappingError, format_mapping, format_text, parse, parse_expr, show
from ckptc.dsl.formatting.comments import Source

HERE = Path(__file__).parent
SAMPLE = (HERE / "sample.ckmap").read_text()


def _load() -> Any:
    spec = importlib.util.spec_from_file_location("dsl_strategies", HERE / "strategies.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


trees = _load()
calm = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


@calm
@given(trees.exprs)
def test_a_shown_expression_reads_back_as_itself(expr: Any) -> None:
    assert repr(parse_expr(show(expr))) == repr(expr)


@calm
@given(trees.indices)
def test_a_shown_index_reads_back_as_itself(index: Any) -> None:
    read = parse(f'layout a of b {{ "x" = [{show(index)}] }}').layouts[0].items[0].dims[0]
    assert repr(read) == repr(index)


@calm
@given(trees.patterns)
def test_a_shown_pattern_reads_back_as_itself(pattern: Any) -> None:
    read = parse(f"layout a of b {{ ignore {show(pattern)} }}").layouts[0].items[0].names[0]
    assert repr(read) == repr(pattern)


@calm
@given(trees.rules)
def test_a_shown_rule_reads_back_as_itself(rule: Any) -> None:
    assert repr(parse(f"layout a of b {{ {show(rule)} }}").layouts[0].items[0]) == repr(rule)


@calm
@given(trees.mappings)
def test_a_formatted_tree_parses_to_itself_and_formats_to_itself(mapping: Any) -> None:
    text = format_mapping(mapping)
    assert repr(parse(text)) == repr(mapping)
    assert format_text(text) == text


@calm
@given(trees.mappings, st.data())
def test_comments_anywhere_between_tokens_survive_formatting(mapping: Any, data: Any) -> None:
    lines = format_mapping(mapping).split("\n")
    for number in data.draw(st.lists(st.integers(0, len(lines) - 1), max_size=5, unique=True)):
        lines[number] += f" # c{number}" if data.draw(st.booleans()) else f"\n\n# c{number}"
    text = "\n".join(lines)
    formatted = format_text(text)
    assert sorted(c for _, c in Source(formatted).comments) == sorted(c for _, c in Source(text).comments)
    assert repr(parse(formatted)) == repr(mapping)
    assert format_text(formatted) == formatted


@calm
@given(st.data())
def test_white_space_and_comments_between_any_tokens_change_nothing(data: Any) -> None:
    cuts = data.draw(
        st.lists(st.sampled_from([i for i, c in enumerate(SAMPLE) if c in "[],\n"]), max_size=6, unique=True)
    )
    text = SAMPLE
    for cut in sorted(cuts, reverse=True):
        line = text[text.rfind("\n", 0, cut) + 1 : cut]
        if "#" in line or line.count('"') % 2:
            continue
        text = text[:cut] + f" # at {cut}\n" + text[cut:]
    formatted = format_text(text)
    assert parse(formatted) == parse(SAMPLE)
    assert sorted(c for _, c in Source(formatted).comments) == sorted(c for _, c in Source(text).comments)
    assert format_text(formatted) == formatted


@calm
@given(st.text(max_size=60) | st.text('abc{}[]()"=:+-*/ \n#1.,whenmodellayout', max_size=60))
def test_random_text_raises_only_diagnostics(text: str) -> None:
    _parses_or_explains(text)


@calm
@given(st.data())
def test_mutated_text_raises_only_diagnostics(data: Any) -> None:
    at = data.draw(st.integers(0, len(SAMPLE)))
    length = data.draw(st.integers(0, 12))
    inserted = data.draw(st.text(max_size=4) | st.sampled_from([*'{}[]()"=#/', " when ", " as ", " or ", " copy "]))
    _parses_or_explains(SAMPLE[:at] + inserted + SAMPLE[at + length :])


def _parses_or_explains(text: str) -> None:
    try:
        formatted = format_text(text)
    except MappingError as error:
        faults = error.diagnostics
    else:
        assert format_text(formatted) == formatted
        return
    assert faults
    assert all(d.code and d.title and d.labels for d in faults)
