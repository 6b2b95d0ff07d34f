"""What a person sees for each fault: source and message, kept in `snapshots`; CKPTC_REWRITE=1 rewrites them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ckptc.dsl import MappingError, parse
from ckptc.dsl.render import render

SNAPSHOTS = Path(__file__).parent / "snapshots"
CUT = "----\n"


@pytest.mark.parametrize("path", sorted(SNAPSHOTS.glob("*.txt")), ids=lambda path: path.stem)
def test_the_message_is_the_one_in_the_snapshot(path: Path) -> None:
    source, _, expected = path.read_text().partition(CUT)
    with pytest.raises(MappingError) as caught:
        parse(source, "x.ckmap")
    rendered = render(caught.value.diagnostics, {"x.ckmap": source}) + "\n"
    if os.environ.get("CKPTC_REWRITE"):
        path.write_text(source + CUT + rendered)
    else:
        assert rendered == expected


def test_every_code_of_the_parser_has_a_snapshot() -> None:
    seen = "".join(path.read_text() for path in SNAPSHOTS.glob("*.txt"))
    codes = ("syntax", "bad-pattern", "unknown-dtype", "mixed-placement", "repeated-modifier", "too-deep")
    assert [code for code in codes if f"error[{code}]" not in seen] == []
