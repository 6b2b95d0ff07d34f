"""Config blocks of layouts that extend each other in; the one block of the last layout out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ...dsl.diagnostic import Diagnostic, Label, MappingError
from ...dsl.tree import Bind, Config, ConfigItem, Expr, Fixed, Identity, Only, Require, Unused
from ..values.walk_expr import keys, under_key


def merged(before: Config | None, own: Config) -> Config:
    """A layout's config over the one that it inherits, where both are of one file, or its own names none.

    An entry takes the place of the one that binds the same name, writes the same key or tests the same value; one that
    binds a key takes the place of an `only` about that key. Entries that are `none` stay, until all is merged. Raises
    `MappingError` where no file is named at all.
    """
    if before is None:
        if not own.file:
            help = 'name its file: config "config.json" { ... }'
            raise MappingError(Diagnostic("config-file", "this config adds to an inherited one, and there is none", (Label(own.span),), help=help))
        return own
    if own.file not in ("", before.file):
        return own
    entries = {_about(x): x for x in before.items if not _bound_by(own.entries, x)}
    entries |= {_about(x): x for x in own.items}
    return Config(
        before.file, tuple(entries.values()), own.template or before.template, own.read_only or before.read_only, own.partial or before.partial, own.span
    )


def whole(own: Config | None, of_parts: Iterable[Config]) -> Config | None:
    """A layout's config with what those of its parts say besides, where it says nothing itself; a layout without one has none."""
    if own is None:
        return None
    entries = {_about(x): x for x in own.items}
    for part in of_parts:
        entries |= {_about(x): x for x in part.items if _about(x) not in entries and not _bound_by(own.entries, x)}
    return replace(own, items=tuple(x for x in entries.values() if not (isinstance(x, Bind) and x.value is None)))


def _bound_by(entries: Iterable[Bind], item: ConfigItem) -> bool:
    """Whether the item is an `only` about a key that one of the entries binds."""
    bound = {path for each in entries if each.value is not None for path in keys(each.value)}
    return isinstance(item, Only) and bool(set(keys(item.value)) & bound)


def _about(item: ConfigItem) -> tuple[str, object]:
    """What an entry is about; lists of unused keys add up."""
    match item:
        case Bind(name):
            return "bind", name
        case Fixed(key, _, when):
            return "fixed", (key, when)
        case Only(value):
            return "only", value
        case Identity(key):
            return "is", key
        case Unused(globs):
            return "unused", globs
    raise TypeError(f"no such entry: {item!r}")


def config_under(config: Config, prefix: tuple[str, ...]) -> Config:
    """The config with all its keys below another key."""
    return replace(config, items=tuple(_entry_under(x, prefix) for x in config.items)) if prefix else config


def require_under(require: Require, prefix: tuple[str, ...]) -> Require:
    """The requirement with all the config keys that it reads below another key."""
    return replace(require, test=under_key(require.test, prefix), when=_under(require.when, prefix)) if prefix else require


def _entry_under(item: ConfigItem, prefix: tuple[str, ...]) -> ConfigItem:
    match item:
        case Bind(_, value):
            return replace(item, value=_under(value, prefix))
        case Fixed(key, value, when):
            fixed = tuple(under_key(x, prefix) for x in value) if isinstance(value, tuple) else under_key(value, prefix)
            return replace(item, key=replace(key, path=prefix + key.path), value=fixed, when=_under(when, prefix))
        case Only(value, _, _, when):
            return replace(item, value=under_key(value, prefix), when=_under(when, prefix))
        case Unused(globs):
            return replace(item, globs=tuple(".".join((*prefix, glob)) for glob in globs))
        case Identity(key):
            return replace(item, key=replace(key, path=prefix + key.path))
    raise TypeError(f"no such entry: {item!r}")


def _under(expr: Expr | None, prefix: tuple[str, ...]) -> Expr | None:
    return None if expr is None else under_key(expr, prefix)
