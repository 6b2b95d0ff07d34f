"""The formatter's golden file, and the comments it keeps; CKPTC_REWRITE=1 rewrites the golden file."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from ckptc.dsl import format_mapping, format_text, parse, show

HERE = Path(__file__).parent
DOCS = HERE.parents[1] / "docs"
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in sorted(DOCS.glob("*.md"))
    for number, block in enumerate(re.findall(r"^```ckmap\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE), 1)
]


def test_the_sample_is_formatted_as_the_golden_file_shows() -> None:
    golden = HERE / "sample.formatted.ckmap"
    formatted = format_text((HERE / "sample.ckmap").read_text())
    if os.environ.get("CKPTC_REWRITE"):
        golden.write_text(formatted)
    assert formatted == golden.read_text()
    assert format_text(formatted) == formatted


@pytest.mark.parametrize("block", BLOCKS)
def test_an_example_of_the_docs_is_complete_and_formatted(block: str) -> None:
    assert format_text(block) == block


def test_comments_stay_with_what_they_speak_of() -> None:
    text = """# head of file

# of m
model m {   # after the brace
  axes {  # after axes
    # before x
    x y   # after y
    # last in axes
  } # axes end

  # before t
  t [x]# after t


  # before u
  u [x,   # in the middle
     # on its own
     y]
  # last in m
}
# end of file
"""
    assert (
        format_text(text)
        == """# head of file

# of m
model m {  # after the brace
  axes {  # after axes
    # before x
    x y  # after y
    # last in axes
  }  # axes end

  # before t
  t [x]  # after t

  # before u
  # in the middle
  # on its own
  u [x, y]
  # last in m
}
# end of file
"""
    )


def test_rules_without_a_blank_line_between_are_aligned() -> None:
    text = 'layout l of m {\n"a" = embed [x] on first\n"long" = q [x]\n\n"b" = k [x]\n}\n'
    assert format_text(text) == (
        'layout l of m {\n  "a"    = embed [x]  on first\n  "long" = q     [x]\n\n  "b" = k [x]\n}\n'
    )


def test_a_long_rule_is_wrapped_before_its_equals_sign() -> None:
    name = "x" * 100
    assert (
        format_text(f'layout l of m {{ "{name}" = q [x] on last }}')
        == f'layout l of m {{\n  "{name}"\n      = q [x]  on last\n}}\n'
    )


def test_a_tree_without_text_is_formatted_too() -> None:
    assert format_mapping(parse("model m { axes { x } # c\n t [x] }")) == "model m {\n  axes { x }\n  t [x]\n}\n"


def test_show_prints_one_line() -> None:
    rule = parse('layout l of m { "a{layer:02}" =\n q [(x\n y)/tp] when b }').layouts[0].items[0]
    assert show(rule) == '"a{layer:02}" = q [(x y)/tp] when b'  # type: ignore[arg-type]
