"""Config blocks of layouts that extend each other in; the one block of the last layout out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ...dsl.diagnostic import Diagnostic, Label, MappingError
from ...dsl.tree import Bind, Config, ConfigItem, Fixed, Identity, Only, Unused
from ..values.walk_expr import keys


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
    bound = _bound(own)
    entries = {_about(x): x for x in before.items if not _reads(x, bound)}
    entries |= {_about(x): x for x in own.items}
    return Config(
        before.file, tuple(entries.values()), own.template or before.template, own.read_only or before.read_only, own.partial or before.partial, own.span
    )


def whole(own: Config | None, of_parts: Iterable[Config]) -> Config | None:
    """A layout's config with what those of its parts say besides, where it says nothing itself; a layout without one has none."""
    if own is None:
        return None
    bound, entries = _bound(own), {_about(x): x for x in own.items}
    for part in of_parts:
        entries |= {_about(x): x for x in part.items if _about(x) not in entries and not _reads(x, bound)}
    return replace(own, items=tuple(x for x in entries.values() if not (isinstance(x, Bind) and x.value is None)))


def _bound(config: Config) -> frozenset[tuple[str, ...]]:
    """The keys that its entries bind."""
    return frozenset(path for each in config.entries if each.value is not None for path in keys(each.value))


def _reads(item: ConfigItem, bound: frozenset[tuple[str, ...]]) -> bool:
    """Whether the item is an `only` about one of these keys."""
    return isinstance(item, Only) and not bound.isdisjoint(keys(item.value))


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
