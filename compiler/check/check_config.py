"""A config block and a config file in; what the file says that the block does not carry, out.

A setting that changes what the model computes is bound, or the block says by `only` which values change nothing, or it
is refused. What the block says nothing of is listed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from ...dsl.diagnostic import Diagnostic, Label, MappingError
from ...dsl.tree import Bind, Config, Expr, Fixed, Identity, Literal, Only, Unused
from ..link.flat import FlatLayout
from ..values.scope import Scope, evaluate, holds, same, shown
from ..values.walk_expr import keys


def check_identity(config: Config, scope: Scope) -> None:
    """That the config is of this model. Raises `MappingError` where one of its keys names another."""
    for item in config.items:
        if isinstance(item, Identity):
            value, allowed = scope.key(item.key.path), [_plain(v, scope) for v in item.values]
            if value is not None and not any(same(value, each) for each in allowed):
                raise MappingError(
                    Diagnostic(
                        "other-family", f"{scope.key_file} is of another family: its {item.key.dotted} is {shown(value)}",
                        (Label(item.span, "this family's is here"),), (f"this family's is {' or '.join(map(shown, allowed))}",),
                        "name the family with --family, or a mapping of your own with --mapping",
                    )
                )  # fmt: skip


def check_only(config: Config, scope: Scope) -> None:
    """That every setting which the block does not carry has a value that changes nothing. Raises `MappingError`."""
    faults = []
    for item in config.items:
        if not isinstance(item, Only) or not holds(item.when, scope):
            continue
        named = dict.fromkeys(".".join(path) for path in keys(item.value) if scope.key(path) is not None)
        value = evaluate(item.value, scope)
        named = named or dict.fromkeys(".".join(path) for path in keys(item.value))
        if value is None or value in ([], {}, "") or scope.accepted & set(named):
            continue
        allowed = [_plain(v, scope) for v in item.values]
        if not any(same(value, each) for each in allowed):
            name = next(iter(named))
            raw = scope.key(tuple(name.split(".")))
            effect = f"; it sets {item.effect}" if item.effect else ""
            faults.append(
                Diagnostic(
                    "unsupported-setting", f"{scope.key_file}: {name} is {shown(raw)}, which cannot be carried over",
                    (Label(item.span, "what can be is said here"),),
                    (f"only {' or '.join(map(shown, allowed))} can{effect}",),
                    f"if it makes no difference to this model, --accept {name} goes on without it",
                )
            )  # fmt: skip
    if faults:
        raise MappingError(*faults)


def _plain(value: Literal | tuple[Expr, ...], scope: Scope) -> Any:
    return [evaluate(x, scope) for x in value] if isinstance(value, tuple) else value.value


def unknown_keys(config: Config, layout: FlatLayout, data: Mapping[str, Any]) -> tuple[str, ...]:
    """Keys of a config file, by dotted path, that the block does not mention. Null ones say nothing."""
    known, globs = set[tuple[str, ...]](), list[str]()
    for item in config.items:
        match item:
            case Unused(patterns):
                globs += patterns
            case Bind(_, value) if value is not None:
                known |= set(keys(value))
            case Only(value, _, _, when):
                known |= {*keys(value), *(keys(when) if when is not None else ())}
            case Fixed(key) | Identity(key):
                known.add(key.path)
    known |= {path for x in layout.requires for path in keys(x.test)}
    return tuple(_unknown(data, known, globs, ()))


def _unknown(data: Mapping[str, Any], known: set[tuple[str, ...]], globs: list[str], at: tuple[str, ...]) -> Iterator[str]:
    for name, value in data.items():
        path = (*at, str(name))
        dotted = ".".join(path)
        if value is None or path in known or any(fnmatchcase(dotted, glob) for glob in globs):
            continue
        deeper = any(k[: len(path)] == path and len(k) > len(path) for k in known) or any(g.startswith(f"{dotted}.") for g in globs)
        if not deeper:
            yield dotted
        elif isinstance(value, Mapping):
            yield from _unknown(value, known, globs, path)
