"""A layout in; faults about the files that it names and the containers that it lives in, out."""

from __future__ import annotations

from collections.abc import Iterator

from ...dsl.diagnostic import Diagnostic, Label
from ...dsl.nearest import did_you_mean
from ...dsl.tree import Formats, Hole, Pattern, Span
from ...runtime.formats.registry import format_named, format_names
from ...runtime.inside import HELP, why_outside
from ..link.flat import FlatLayout

USUAL = "safetensors"


def formats_of(layout: FlatLayout) -> Formats:
    """The containers that a layout lives in, the default first."""
    return layout.formats or Formats((USUAL,))


def check_files(layout: FlatLayout) -> Iterator[Diagnostic]:
    """Every name of a file that is read or written beside or below a checkpoint's folder lies within it."""
    for name, span in _names(layout):
        if why := why_outside(name):
            title = f"`{name}` is not a file within the checkpoint: {why}"
            yield Diagnostic("outside-destination", title, (Label(span),), help=HELP)


def check_formats(layout: FlatLayout) -> Iterator[Diagnostic]:
    """The containers are known, and have the names of files that they need."""
    formats = formats_of(layout)
    known = format_names()
    for name in formats.names:
        if name not in known:
            yield Diagnostic(
                "unknown-format", f"there is no format `{name}`", (Label(formats.span),), (f"there are {', '.join(known)}",),
                did_you_mean(name, known, "name one of them"),
            )  # fmt: skip
        elif not format_named(name).names_files and not layout.files:
            yield no_files(layout, name, formats.span)


def no_files(layout: FlatLayout, format: str, span: Span) -> Diagnostic:
    """The fault of a layout that names no files, in a container whose files have no usual names."""
    title = f"layout `{layout.name}` does not say which files its tensors are in, and `{format}` files have no usual names"
    return Diagnostic("no-files", title, (Label(span),), help='name them, as in: files "model/rank_{tp}.pt"')


def _names(layout: FlatLayout) -> Iterator[tuple[str, Span]]:
    in_folder = any(name in format_names() and format_named(name).in_folder for name in formats_of(layout).names)
    for files in layout.files:
        for each in (_spelled(name) for name in files.names if isinstance(name, Pattern)):
            yield each.removesuffix("/") if in_folder else each, files.span
    yield from ((text.file, text.span) for text in layout.texts)
    if layout.config is not None:
        yield layout.config.file, layout.config.span
    if layout.state is not None:
        yield _spelled(layout.state.file), layout.state.span
    yield from ((glob, carry.span) for carry in layout.carry for glob in carry.globs)


def _spelled(pattern: Pattern) -> str:
    """The name with a number in each hole."""
    return "".join("0" if isinstance(part, Hole) else part for part in pattern.parts)
