"""Sizes and settings in, the text of a layout's config file out: its config block solved backwards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from ...dsl.diagnostic import MappingError, fault
from ...dsl.tree import Bind, Config, Fixed, Identity, Literal, Only
from ..values.scope import Scope, evaluate, holds
from ..values.solve import solve
from ..values.walk_expr import refs
from .resolve import Side


def config_values(block: Config, side: Side) -> dict[tuple[str, ...], Any]:
    """The keys of the block, by path, such that reading them gives the sizes, settings and parameters of `side`."""
    known = dict(side.params) | dict(side.ranks) | dict(side.sizes.values)
    unsized = dict.fromkeys(name for item in block.items if isinstance(item, Fixed) for name in _names(item) if name not in known and name not in side.scope.words)
    nothing = {"stored": lambda name: False, "lacks": lambda name: False}  # what is written is read without a checkpoint
    scope = Scope(names=unsized | known, words=side.scope.words, functions=nothing)
    values: dict[tuple[str, ...], Any] = {}
    for item in block.items:
        match item:
            case Bind(name, expr, False) if expr is not None and known.get(name) is not None:
                for path, value in solve(expr, known[name], scope).items():
                    values.setdefault(path, int(value) if isinstance(value, float) and value.is_integer() else value)
            case Fixed(key, fixed, when) if holds(when, scope):
                values[key.path] = [evaluate(x, scope) for x in fixed] if isinstance(fixed, tuple) else evaluate(fixed, scope)
            case Only(value, (Literal(first), *_), _, when) if holds(when, scope) and evaluate(value, scope) not in (None, first):
                for path, solved in solve(value, first, scope).items():  # what the framework takes by itself is another
                    values.setdefault(path, solved)
            case Identity(key, (first, *_)) if isinstance(first, Literal):
                values.setdefault(key.path, first.value)
    return values


def _names(item: Fixed) -> Iterator[str]:
    """Names that a fixed key's value reads. Those that the model knows and that have no value here are axes of tensors
    that it lacks: they are null."""
    for value in item.value if isinstance(item.value, tuple) else (item.value,):
        yield from refs(value)


def config_text(block: Config, side: Side, template: str | None) -> str:
    """The config file: `template` (Jinja2, given the axes, settings and parameters) with the block's keys set in it.

    JSON by a `.json` name, else YAML.
    """
    data: dict[str, Any] = {}
    as_json = block.file.endswith(".json")
    if template is not None:
        text = _render(template, dict(side.sizes.values) | dict(side.params) | dict(side.ranks), block)
        data = _read(text, as_json, block)
    set_keys(data, config_values(block, side))
    return json.dumps(data, indent=2) + "\n" if as_json else _yaml_dump(data)


def set_keys(data: dict[str, Any], values: Mapping[tuple[str, ...], Any]) -> None:
    """Sets the values at their paths. Whole numbers that were calculated are written as such."""
    for (*parents, last), value in values.items():
        at = data
        for parent in parents:
            if not isinstance(at.get(parent), dict):
                at[parent] = {}  # a template may hold null where the block sets a nested key
            at = at[parent]
        at[last] = value


def _render(template: str, values: dict[str, Any], block: Config) -> str:
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment  # a mapping may be another's: it runs nothing of Python's

    try:
        return ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, autoescape=False).from_string(template).render(values)
    except jinja2.TemplateError as e:
        raise fault(
            "bad-template", f"the template {block.template} cannot be filled in: {e.message or 'it is not Jinja2'}", block.span,
            help="a template knows the axes, settings and parameters",
        ) from None  # fmt: skip


def _read(text: str, as_json: bool, block: Config) -> dict[str, Any]:
    """What a filled template holds."""
    import yaml

    try:
        data = json.loads(text) if as_json else yaml.safe_load(text) or {}
    except (ValueError, yaml.YAMLError) as e:
        raise _unreadable(block, f" ({str(e).splitlines()[0]})") from None
    if not isinstance(data, dict):
        raise _unreadable(block, "")
    return data


def _unreadable(block: Config, why: str) -> MappingError:
    kind = "JSON" if block.file.endswith(".json") else "YAML"
    return fault("bad-template-text", f"the template {block.template} does not give the keys and values of a {kind} file{why}", block.span)


def _yaml_dump(data: dict[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(data, sort_keys=False))
