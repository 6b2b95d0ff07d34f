"""What linking makes: a layout in which every prefix, guard and choice is written out, and a family of such layouts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ...dsl.diagnostic import Diagnostic, Label, MappingError
from ...dsl.nearest import did_you_mean
from ...dsl.tree import (
    Carry,
    Config,
    Files,
    Formats,
    Ignore,
    Let,
    Model,
    Note,
    Omit,
    Param,
    Refine,
    Require,
    Rule,
    Span,
    Stages,
    State,
    Text,
)


@dataclass(frozen=True)
class FlatRule:
    """A rule with its full names and its whole guard; rules of one `under` share a `block`."""

    rule: Rule
    block: int


@dataclass(frozen=True)
class FlatLayout:
    """A layout with all that it inherits. Of `files` and of the `lets` of one name, the first whose guard holds applies."""

    name: str
    params: tuple[Param, ...]
    rules: tuple[FlatRule, ...]
    ignores: tuple[Ignore, ...]
    span: Span
    words: frozenset[str]  # choices, also those of parameters that are replaced: they stand for themselves
    files: tuple[Files, ...] = ()
    formats: Formats | None = None
    config: Config | None = None
    stages: Stages | None = None
    state: State | None = None
    lets: tuple[Let, ...] = ()
    refinements: tuple[Refine, ...] = ()
    requires: tuple[Require, ...] = ()
    omits: tuple[Omit, ...] = ()
    notes: tuple[Note, ...] = ()
    texts: tuple[Text, ...] = ()
    carry: tuple[Carry, ...] = ()

    @property
    def own_config(self) -> Config | None:
        """The config that a checkpoint of this layout has with it."""
        return self.config if self.config is not None and not self.config.read_only else None


@dataclass(frozen=True)
class Family:
    """A model, merged with what it extends, and its layouts, merged likewise. `lacking` are layouts that have no place for a
    tensor of the model: by name, that tensor."""

    name: str
    model: Model
    layouts: tuple[FlatLayout, ...]
    own: frozenset[str]  # the layouts that are written for this very model
    ancestors: tuple[str, ...] = ()  # the models that it extends
    lacking: dict[str, str] = field(default_factory=dict)
    bases: tuple[FlatLayout, ...] = ()  # those that are only there to be extended, and are not

    def layout(self, name: str) -> FlatLayout:
        """The layout called `name`. Raises `MappingError` where the family has none."""
        for layout in self.layouts:
            if layout.name == name:
                return layout
        if name in self.lacking:
            raise MappingError(
                Diagnostic(
                    "unknown-layout", f"layout `{name}` cannot hold a `{self.name}`: it has no place for its `{self.lacking[name]}`",
                    notes=(f"the layouts of `{self.name}` are {', '.join(sorted(x.name for x in self.layouts))}",),
                    help=f"write one: layout {name} of {self.name} extends {name} {{ ... }}, with rules for what it lacks",
                )
            )  # fmt: skip
        names = [x.name for x in self.layouts]
        raise MappingError(
            Diagnostic(
                "unknown-layout",
                f"`{self.name}` has no layout `{name}`",
                notes=(f"its layouts are {', '.join(sorted(names))}",),
                help=did_you_mean(name, names),
            )
        )


Named = TypeVar("Named", bound=Any)


def unique(items: Iterable[Named], kind: str) -> dict[str, Named]:
    """The items by their names. Raises `MappingError` where two have one name."""
    found: dict[str, Named] = {}
    for item in items:
        if item.name in found:
            labels = (Label(item.span), Label(found[item.name].span, "first declared here"))
            help = f"rename or remove one `{item.name}`"
            raise MappingError(Diagnostic("declared-twice", f"{kind} `{item.name}` is declared twice", labels, help=help))
        found[item.name] = item
    return found
