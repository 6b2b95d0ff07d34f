"""The formats that there are. Adding one takes its folder, and its line here, or a plugin.

A plugin is a package with an entry point in the group `ckptc.formats`: its name is the format's, and it loads a `Format`.
A program can also call `add_format`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module

from ..files.format import ArchiveKind, Format

# In the order in which a checkpoint is held against them. The module has the format as `FORMAT`.
_HOMES = {
    "torch_dist": "distributed.torch_dist",
    "zarr": "distributed.zarr",
    "safetensors": "huggingface.safetensors",
    "bin": "huggingface.bin",
    "nemo": "nemo.nemo",
    "pt": "ranks.pt",
    "xser": "ranks.xser",
    "megatron": "megatron.megatron",
}
GROUP = "ckptc.formats"
_ARCHIVES = ("nemo.nemo",)  # the module has the kind of archive as `ARCHIVE`
_added: dict[str, Format] = {}


def add_format(format: Format) -> None:
    """Make a format known in this process. It is asked before the built-in ones whether it finds a checkpoint."""
    _added[format.name] = format


def format_names() -> tuple[str, ...]:
    """The names of all formats, in the order in which a checkpoint is held against them."""
    return tuple(dict.fromkeys((*_added, *_plugins(), *_HOMES)))


def format_named(name: str) -> Format:
    """The format called `name`. Raises `KeyError` for a name that there is not."""
    if name in _added:
        return _added[name]
    if name in _plugins():
        return _plugins()[name]
    return _built_in(name)


def formats() -> Iterator[Format]:
    return map(format_named, format_names())


@cache
def archive_kinds() -> tuple[ArchiveKind, ...]:
    """The kinds of archives that hold all files of a checkpoint."""
    return tuple(import_module(f"{__package__}.{home}").ARCHIVE for home in _ARCHIVES)


def archive_kind(path: str) -> ArchiveKind | None:
    """The kind of archive that a file of this name is."""
    return next((kind for kind in archive_kinds() if path.endswith(kind.suffix)), None)


@cache
def _built_in(name: str) -> Format:
    found: Format = import_module(f"{__package__}.{_HOMES[name]}").FORMAT
    return found


@cache
def _plugins() -> dict[str, Format]:
    if not any(map(_may_have_plugins, sys.path)):
        return {}
    from importlib.metadata import entry_points

    return {point.name: point.load() for point in entry_points(group=GROUP)}


def _may_have_plugins(place: str) -> bool:
    """Whether some package installed there names the group; `importlib.metadata`, which says for sure, is slow to import."""
    try:
        found = [each.path for each in os.scandir(place or ".") if each.name.endswith((".dist-info", ".egg-info", ".egg"))]
    except NotADirectoryError:
        return True  # an archive of packages
    except OSError:
        return False
    return any(each.endswith(".egg") or _names_group(os.path.join(each, "entry_points.txt")) for each in found)


def _names_group(path: str) -> bool:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return GROUP in file.read()
    except OSError:
        return False
