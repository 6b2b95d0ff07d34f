"""Families in; what there is to convert between, as a table, and what one layout's parameters are, out."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..compiler.link.flat import Family, FlatLayout
from ..dsl.nearest import nearest
from ..dsl.tree import Expr, Layout, Literal, Param, Ref, Span
from ..runtime.fault import Fault
from . import mapping_files as library
from .families import listed
from .signs import signs_of

_FEW = 4  # families that are named in a row
WIDTH = min(shutil.get_terminal_size((100, 24)).columns, 100)


def records(families: Sequence[Family], name: str | None = None) -> list[dict[str, Any]]:
    """Families for `--json`, with all their layouts; of a `name`, the family that is called so, and the layouts that are, of any."""
    if name is None:
        return [_record(family, family.layouts) for family in listed(families)]
    about(name, families)  # raises where there is nothing of this name
    held = [(family, family.layouts if family.name == name else [x for x in family.layouts if x.name == name]) for family in families]
    return [_record(family, layouts) for family, layouts in held if layouts or family.name == name]


def _record(family: Family, layouts: Iterable[FlatLayout]) -> dict[str, Any]:
    return {"family": family.name, "from": family.model.span.file, "layouts": [_layout(x) for x in layouts]}


def _layout(layout: FlatLayout) -> dict[str, Any]:
    parameters = [
        {"name": p.name, "rank": p.rank, "values": _values(p), "choices": list(p.choices), "default": p.choices[0] if p.choices else _shown(p.default),
         "about": _about(p)}
        for p in layout.params
    ]  # fmt: skip
    signs = signs_of(layout)
    return {
        "layout": layout.name, "from": layout.span.file, "formats": list(signs.formats), "read_only": signs.read_only,
        "about": "\n".join(_paragraphs(layout.span)), "parameters": parameters,
    }  # fmt: skip


def table(families: Sequence[Family]) -> str:
    """The families that are listed, in a line, and a row for each layout: its containers, and whose it is."""
    families = listed(families)
    every = [f.name for f in families]
    named = list(dict.fromkeys(x.name for f in families for x in f.layouts))
    named.sort(key=lambda name: -sum(name in {x.name for x in f.layouts} for f in families))
    rows = []
    for name in named:
        having = [f for f in families if any(x.name == name for x in f.layouts)]
        formats = [signs_of(f.layout(name)) for f in having]
        containers = " | ".join(dict.fromkeys(each for x in formats for each in x.formats))
        rows.append((name, containers + (", read only" if all(x.read_only for x in formats) else ""), _whose([f.name for f in having], every)))
    lines = textwrap.wrap(f"{len(every)} families: {', '.join(every)}", WIDTH, subsequent_indent="  ")
    rows.insert(0, ("LAYOUT", "FORMATS", "FAMILIES"))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    lines.append("")
    for first, second, third in rows:
        start = f"{first.ljust(widths[0])}  {second.ljust(widths[1])}  "
        lines += textwrap.wrap(start + third, WIDTH, subsequent_indent=" " * len(start), drop_whitespace=True)
    return "\n".join([*lines, "", "`ckptc list LAYOUT` shows its families and parameters, `ckptc list FAMILY` a family's layouts."])


def _whose(having: list[str], every: list[str]) -> str:
    others = [name for name in every if name not in having]
    if not others:
        return "all"
    if len(others) <= _FEW < len(having):
        return f"all but {', '.join(others)}"
    return ", ".join(having) if len(having) <= _FEW else f"{len(having)} of {len(every)}"


def about(name: str, families: Sequence[Family]) -> str:
    """What there is of this name: a family's layouts, or a layout's parameters. Raises `Fault` for what is neither."""
    parts = [_of_family(f) for f in families if f.name == name]
    having = [f for f in families if any(x.name == name for x in f.layouts)]
    kinds: dict[Any, list[Family]] = {}
    for family in having:
        layout = family.layout(name)
        kinds.setdefault((tuple(p.span for p in layout.params), signs_of(layout).formats, signs_of(layout).read_only), []).append(family)
    parts += [_of_layout(_usual([f.layout(name) for f in own]), [f.name for f in own]) for own in kinds.values()]
    if parts:
        return "\n\n".join(parts)
    known = sorted({f.name for f in families} | {x.name for f in families for x in f.layouts})
    near = nearest(name, known)
    raise Fault("unknown-name", f"no family or layout is called `{name}`", help=f"did you mean `{near}`?" if near else "`ckptc list` shows them all")


def _usual(layouts: list[FlatLayout]) -> FlatLayout:
    """The one that most families have: some have rules of their own in a layout with the same parameters."""
    return max(layouts, key=lambda layout: sum(x.span == layout.span for x in layouts))


def _of_family(family: Family) -> str:
    lines = [f"family {family.name}  ({family.model.span.file})"]
    width = max(len(x.name) for x in family.layouts)
    for layout in family.layouts:
        parameters = ", ".join(p.name for p in layout.params if not _fixed(p, layout))
        lines += textwrap.wrap(f"  {layout.name.ljust(width)}  {parameters or 'no parameters'}", WIDTH, subsequent_indent=" " * (width + 4))
    return "\n".join(lines)


def _of_layout(layout: FlatLayout, families: list[str]) -> str:
    signs = signs_of(layout)
    title = f"layout {layout.name} of {', '.join(families)}  ({layout.span.file})"
    lines = [*textwrap.wrap(title, WIDTH, subsequent_indent="  "), f"formats: {' | '.join(signs.formats)}" + (", read only" if signs.read_only else "")]
    for paragraph in _paragraphs(layout.span):
        lines += ["", *textwrap.wrap(paragraph, WIDTH)]
    shown = [p for p in layout.params if not _fixed(p, layout)]
    if shown:
        lines += ["", "parameters, the default first:"]
    width = max((len(p.name) for p in shown), default=0)
    for p in shown:
        lines.append(f"  {p.name.ljust(width)}  {_values(p)}" + ("  (parallel degree)" if p.rank else ""))
        if explained := _about(p):
            lines += textwrap.wrap(explained, WIDTH, initial_indent=" " * (width + 6), subsequent_indent=" " * (width + 6))
    return "\n".join(lines)


def _fixed(param: Param, layout: FlatLayout) -> bool:
    """Whether the layout gives the parameter its one value."""
    return not param.choices and isinstance(param.default, Ref) and param.default.name in layout.words


def _shown(default: Expr) -> str:
    from ..dsl.formatting.show import show

    return show(default)


def _values(param: Param) -> str:
    if param.choices:
        return " | ".join(param.choices)
    default = param.default.value if isinstance(param.default, Literal) else None
    return "false | true" if default is False else "true | false" if default is True else _shown(param.default)


# --- comments ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Said:
    """A sentence of a comment, and the parameters that it is about."""

    text: str
    of: frozenset[str]


def _about(param: Param) -> str:
    """What the comment directly above the layout that declares a parameter says of it."""
    declared = _declaring(param.span)
    if declared is None:
        return ""
    said = []
    for paragraph in _paragraphs(declared.span):
        of: frozenset[str] = frozenset()
        for sentence in _sentences(paragraph, [p.name for p in declared.params]):
            of = sentence.of or of  # one that names no parameter goes on about the last one
            if param.name in of:
                said.append(sentence.text)
    return " ".join(said)


def _sentences(comment: str, names: Iterable[str]) -> list[_Said]:
    found = [text for text in re.split(r"(?<=\.)\s+", comment) if text]
    # A name of one plain word is meant where a value is given for it.
    patterns = {name: re.compile(rf"\b{name}\b" if "_" in name else rf"\b{name} =") for name in names}
    return [_Said(text, frozenset(name for name, pattern in patterns.items() if pattern.search(text))) for text in found]


def _declaring(span: Span) -> Layout | None:
    """The layout whose parameter stands at this place."""
    mapping = library.read_mapping(library.file_of(span.file))
    return next((x for x in mapping.layouts if x.span.line <= span.line <= x.span.end_line), None)


def _paragraphs(span: Span) -> list[str]:
    """The paragraphs of the comment directly above a place of a mapping file."""
    try:
        lines = Path(library.file_of(span.file)).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    above: list[str] = []
    for line in reversed(lines[: span.line - 1]):
        if not line.lstrip().startswith("#"):
            break
        above.insert(0, line.lstrip().removeprefix("#").strip())
    paragraphs: list[list[str]] = [[]]
    for line in above:
        if line:
            paragraphs[-1].append(line)
        else:
            paragraphs.append([])
    return [" ".join(each) for each in paragraphs if each]
