"""A model or a layout as it is written in; faults about statements that cannot stand together out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ...dsl.diagnostic import Diagnostic, Label, MappingError
from ...dsl.tree import (
    Choices,
    Files,
    Formats,
    Layout,
    LayoutItem,
    Let,
    Model,
    NamedPrefix,
    Part,
    PartLayout,
    Stages,
    State,
    TensorDecl,
    Under,
)

_ONCE = {Files: "files", Formats: "format", Stages: "stages", State: "state"}
_ONCE_A_NAME = {Let: "let", NamedPrefix: "prefix", PartLayout: "part"}


def choices(item: Any) -> tuple[Any, ...]:
    """The choices of a statement; one that has no others is its only choice."""
    return item.items if isinstance(item, Choices) else (item,)


def check_places(model: Model) -> None:
    """Raises `MappingError` for each tensor or part that is to be on the first and on the last stage."""
    items: tuple[Part | TensorDecl, ...] = (*model.parts, *model.tensors)
    faults = [
        Diagnostic(
            "before-and-after", f"`{item.name}` stands before `{item.before}` and after `{item.after}`", (Label(item.span),),
            help="keep one: the tensor is on the first stage, or on the last",
        )
        for item in items if item.before is not None and item.after is not None
    ]  # fmt: skip
    if faults:
        raise MappingError(*faults)


def check_statements(layout: Layout) -> None:
    """Raises `MappingError` for each statement that may stand once and stands again, and for each choice that is never taken."""
    faults = [*_twice(layout.items), *_never_taken(layout.items)]
    if faults:
        raise MappingError(*faults)


def _twice(items: Iterable[LayoutItem]) -> Iterator[Diagnostic]:
    first: dict[str, LayoutItem] = {}
    for item in items:
        one = choices(item)[0]
        what = _ONCE.get(type(one)) or (f"{word} {one.name}" if (word := _ONCE_A_NAME.get(type(one))) else None)
        if what is not None and (before := first.setdefault(what, item)) is not item:
            several = isinstance(one, (Files, Let, NamedPrefix))
            help = "write one statement, its choices after commas, as in: let a = x when c, y" if several else f"write one `{what}`"
            labels = (Label(item.span), Label(before.span, "first said here"))
            yield Diagnostic("said-twice", f"`{what}` is said twice", labels, help=help)


def _never_taken(items: Iterable[LayoutItem]) -> Iterator[Diagnostic]:
    """Choices that stand after one without `when`, or after one with the same."""
    for item in items:
        before: dict[Any, Any] = {}
        for choice in item.prefixes if isinstance(item, (NamedPrefix, PartLayout, Under)) else choices(item) if isinstance(item, Choices) else ():
            if (taken := before.get(None) or before.get(choice.when)) is not None:
                why = "it has no `when`" if taken.when is None else "it has the same `when`"
                labels = (Label(choice.span), Label(taken.span, f"this is taken before, because {why}"))
                yield Diagnostic("unreachable-choice", "this choice is never taken", labels, help="remove it, or give the earlier one a `when` of its own")
            before.setdefault(choice.when, choice)
        if isinstance(item, Under):
            yield from _never_taken(item.items)
