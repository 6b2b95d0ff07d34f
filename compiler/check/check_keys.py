"""A mapping file, those that it uses and their families in; config keys that are probably misspelt, out.

Nothing says which keys the config of a framework may have. A key that is said in one place alone, and is one slip of a finger from a
key of the same config file that is said elsewhere, is worth a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

from ...dsl.diagnostic import Diagnostic, Label
from ...dsl.nearest import one_slip
from ...dsl.tree import Key, Mapping, Span
from ...dsl.walk import walk
from ..link.flat import Family

Path: TypeAlias = tuple[str, ...]
_SHORT = 4  # words that are shorter resemble each other by accident


def odd_keys(mapping: Mapping, used: Iterable[Mapping], families: Iterable[Family]) -> Iterator[Diagnostic]:
    """A warning for each such key of `mapping`."""
    own, files = _keys(mapping), _files(families)
    said: dict[Path, set[Span]] = {}
    for key in (*own, *(key for each in used for key in _keys(each))):
        said.setdefault(key.path, set()).add(key.span)
    for key in own:
        if len(said[key.path]) == 1 and (near := _near(key, said, files)) is not None:
            meant = ".".join(near)
            yield Diagnostic(
                "odd-key", f"`.{key.dotted}` is one letter from `.{meant}`, which is said elsewhere", (Label(key.span, "said here alone"),),
                help=f"did you mean `.{meant}`?", severity="warning",
            )  # fmt: skip


def _keys(mapping: Mapping) -> list[Key]:
    return [node for node in walk(mapping) if isinstance(node, Key)]


def _files(families: Iterable[Family]) -> dict[Span, str]:
    """Of which file the keys are, by their places. Blocks that name no file are those of what they extend. A key that is replaced in
    every layout is of none."""
    configs = (layout.config for family in families for layout in (*family.layouts, *family.bases) if layout.config is not None)
    return {node.span: config.file for config in configs for node in walk(config) if isinstance(node, Key)}


def _near(key: Key, said: dict[Path, set[Span]], files: dict[Span, str]) -> Path | None:
    own = files.get(key.span)

    def told(path: Path, place: Span) -> bool:
        return (own is None or files.get(place, own) == own) and _by_accident(key, path, place)

    found = [path for path, places in said.items() if _slip(key.path, path) and any(told(path, place) for place in places)]
    return max(found, key=lambda path: (len(said[path]), path), default=None)


def _slip(path: Path, other: Path) -> bool:
    differ = [(a, b) for a, b in zip(path, other, strict=False) if a.strip("_") != b.strip("_")]
    return len(path) == len(other) and len(differ) == 1 and len(differ[0][1]) >= _SHORT and one_slip(*differ[0])


def _by_accident(key: Key, path: Path, place: Span) -> bool:
    """Whether the key may be a slip of the other, which is said at this place. In one file, keys that differ in a single letter are
    two keys on purpose: `qk_nope_head_dim` and `qk_rope_head_dim`."""
    one, other = key.dotted, ".".join(path)
    return place.file != key.span.file or len(one) != len(other) or sorted(one) == sorted(other)
