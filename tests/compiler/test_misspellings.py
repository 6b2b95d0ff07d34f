"""Every name of every construct of the shipped mappings, misspelt by one letter: `check` finds it at its place, and the right one."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ckptc.compiler.check.check import check
from ckptc.dsl import tree
from ckptc.dsl.diagnostic import Diagnostic, MappingError
from ckptc.dsl.nearest import one_slip
from ckptc.dsl.walk import walk
from ckptc.library.mapping_files import SHIPPED, load, read_mapping

EACH = 4  # misspellings of every kind of name


def names(mapping: tree.Mapping) -> Iterator[tuple[str, str, tree.Span]]:
    """(kind, name, where it stands) of what is named in a file and declared elsewhere."""
    for node in walk(mapping):
        match node:
            case tree.Ref(name, span):
                yield "expression", name, span
            case tree.AxisRef(name, span):
                yield "shape", name, span
            case tree.Hole(axis, span=span):
                yield "hole", axis, span
            case tree.Rule(tensor=str() as tensor, span=span):
                yield "tensor of a rule", tensor, span
            case tree.Rename(label, tensor, span):
                yield "label", label, span
                yield "renamed tensor", tensor, span
            case tree.Term(label=str() as label, span=span):
                yield "tensor of a segment", label, span
            case tree.Bind(name, value, span=span) if value is not None:
                yield "config entry", name, span
            case tree.Slice(_, rank, span):
                yield "rank of a slice", rank, span
            case tree.Omit(tensors, span=span):
                yield from (("omitted tensor", name, span) for name in tensors)
            case tree.Base(name, span=span):
                yield "layout that is extended", name, span
            case tree.Prefix(name=str() as name, span=span):
                yield "named prefix", name, span
            case tree.PartLayout(name, layout, span=span):
                yield "part", name, span
                yield "layout of a part", layout, span
            case tree.Part(_, model, span=span):
                yield "model of a part", model, span
            case tree.TensorDecl(axes=axes, tied_to=tied, before=before, after=after, span=span):
                yield from (("axis of a tensor", axis.name, span) for axis in axes)
                yield from (("what a tensor names", name, span) for name in (tied, before, after) if name)
            case tree.Stages(axis, rank, interleave, span=span):
                yield from (("stages", name, span) for name in (axis, rank, interleave) if name)
            case tree.Call(function, span=span) if function not in ("stored", "lacks"):
                yield "function", function, span
            case tree.Call("stored" | "lacks", args, span=span):
                yield from (("stored tensor", arg.name, span) for arg in args if isinstance(arg, tree.Ref))
            case tree.Formats(formats, span=span):
                yield from (("format", name, span) for name in formats)
            case tree.Model(extends=str() as extends, span=span):
                yield "model that is extended", extends, span
            case tree.Layout(model=model, span=span):
                yield "model of a layout", model, span


def misspelt(name: str, draw: random.Random) -> str:
    """With one letter doubled, dropped, or exchanged with its neighbour; never another name of the same meaning."""
    at = draw.randrange(len(name))
    ways = [name[:at] + name[at] + name[at:]]
    if len(name) > 3:
        ways.append(name[:at] + name[at + 1 :])
    if at + 1 < len(name) and name[at] != name[at + 1]:
        ways.append(name[:at] + name[at + 1] + name[at] + name[at + 2 :])
    return draw.choice([way for way in ways if way[0].isalpha()] or ways[:1])


def cases() -> list[tuple[str, str, str, str, tree.Span]]:
    """(kind, file, name, misspelling, place), the same in every run."""
    draw = random.Random(2)
    found: dict[str, list[tuple[str, str, tree.Span]]] = {}
    every = set()
    for path in sorted(SHIPPED.glob("*.ckmap")):
        for kind, name, span in names(read_mapping(path)):
            found.setdefault(kind, []).append((path.name, name, span))
            every.add(name)
    out = []
    for kind, places in sorted(found.items()):
        left = EACH
        for file, name, span in draw.sample(places, len(places)):
            wrong = misspelt(name, draw)
            if left and len(name) > 1 and wrong not in every:
                out.append((kind, file, name, wrong, span))
                left -= 1
    return out


CASES = cases()


@pytest.fixture(scope="module")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mappings")
    for path in (*SHIPPED.glob("*.ckmap"), *SHIPPED.glob("*.j2")):
        shutil.copy(path, folder / path.name)
    return folder


def faults(path: Path) -> tuple[Diagnostic, ...]:
    try:
        return check(load([path], bases=True))
    except MappingError as error:
        return error.diagnostics


def spoilt(text: str, span: tree.Span, name: str, wrong: str) -> tuple[str, int] | None:
    """The text with the name misspelt where it stands within a node, and the line of that place."""
    lines = text.split("\n")
    for number in range(span.line, span.end_line + 1):
        line = lines[number - 1]
        start = span.column - 1 if number == span.line else 0
        end = span.end_column - 1 if number == span.end_line else len(line)
        for at in _words(line, name, start, end):
            lines[number - 1] = line[:at] + wrong + line[at + len(name) :]
            return "\n".join(lines), number
    return None


def _words(line: str, name: str, start: int, end: int) -> Iterator[int]:
    at = line.find(name, start, end)
    while at >= 0:
        before, after = line[at - 1 : at], line[at + len(name) : at + len(name) + 1]
        if not (before.isalnum() or before in ("_", ".", "-", '"')) and not (after.isalnum() or after in ("_", "-")):
            yield at
        at = line.find(name, at + 1, end)


def test_there_are_enough_misspellings_of_enough_kinds() -> None:
    assert len(CASES) >= 60
    assert len({kind for kind, *_ in CASES}) >= 20


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}: {case[3]} in {case[1]}")
def test_a_misspelt_name_is_found_at_its_place_with_the_right_one(case: Any, shipped: Path) -> None:
    kind, file, name, wrong, span = case
    path = shipped / file
    text = path.read_text()
    told = spoilt(text, span, name, wrong)
    assert told is not None, f"`{name}` does not stand at {span}: this case misspells nothing"
    try:
        path.write_text(told[0])
        found = faults(path)
    finally:
        path.write_text(text)
    about = [d for d in found if any(label.span.line <= told[1] <= max(label.span.end_line, label.span.line) and label.span.file.endswith(file) for label in d.labels)]
    assert about, f"{kind} `{wrong}` passes in silence: {[d.code for d in found]}"
    suggested = {word for d in about for word in re.findall(r"did you mean `([^`]*)`", d.help)}
    as_near = {each for each in suggested if one_slip(wrong, each)}  # of two that are as near, either may be meant
    assert name in suggested or as_near or any(name in " ".join((d.help, *d.notes)) for d in about), [(d.code, d.title, d.help) for d in about]
