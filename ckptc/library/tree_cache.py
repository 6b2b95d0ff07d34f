"""Syntax trees of mapping files, kept between runs in the user's cache folder: a warm start needs no grammar.

A cache file is believed only where its key fits: text, name, Python, and the sources of the language. It is JSON: a list is a
tuple (it begins with 0) or a node of `dsl.tree` (it begins with the node's name), and nothing else can come of it. Whatever goes
wrong, the text is parsed.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..dsl import tree

OFF = "CKPTC_NO_CACHE"
_HOME = Path(tree.__file__).parent


_NODES: dict[str, tuple[type, int]] = {
    name: (kind, len(fields(kind))) for name, kind in vars(tree).items() if isinstance(kind, type) and is_dataclass(kind)
}


def _plain(value: Any) -> Any:
    """A tree as JSON has it."""
    if isinstance(value, tuple):
        return [0, *map(_plain, value)]
    if is_dataclass(value):
        return [type(value).__name__, *(_plain(getattr(value, f.name)) for f in fields(value))]
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{value!r} is nothing that a tree holds")


def _tree(value: Any) -> Any:
    """A tree from what JSON has. Raises `ValueError`, `LookupError` or `TypeError` for anything else."""
    if not isinstance(value, list):
        if isinstance(value, dict):
            raise ValueError("no tree has objects")
        return value
    kind, *held = value
    if kind == 0 and kind is not False:
        return tuple(map(_tree, held))
    node, count = _NODES[kind]
    if len(held) != count:
        raise ValueError(f"{kind} has {count} fields")
    return node(*map(_tree, held))


def recall(text: str, name: str) -> tree.Mapping | None:
    """The tree of `text` under the display name `name`, if it is known."""
    try:
        place = _place(name)
        if place is None:
            return None
        stored = place.read_bytes()
        key = _key(text, name)
        if not stored.startswith(key):
            return None
        found = _tree(json.loads(stored[len(key) :]))
    except Exception:
        return None
    return found if isinstance(found, tree.Mapping) else None


def keep(text: str, name: str, mapping: tree.Mapping) -> None:
    """Stores the tree; one file per name, replaced at once."""
    partial = ""
    try:
        place = _place(name)
        if place is None:
            return
        number, partial = tempfile.mkstemp(dir=place.parent)
        with os.fdopen(number, "wb") as file:
            file.write(_key(text, name) + json.dumps(_plain(mapping), separators=(",", ":")).encode())
        os.replace(partial, place)
    except Exception:
        if partial and os.path.exists(partial):
            os.unlink(partial)


def _place(name: str) -> Path | None:
    """The cache file of a name, in a folder that is the user's own."""
    if os.environ.get(OFF):
        return None
    home = os.environ.get("XDG_CACHE_HOME", "")
    folder = (Path(home) if os.path.isabs(home) else Path.home() / ".cache") / "ckptc"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        return None
    return folder / f"{sha256(name.encode()).hexdigest()[:24]}.tree"


def _key(text: str, name: str) -> bytes:
    found = [place for pattern in ("*.py", "*/*.py", "*/*.lark") for place in _HOME.glob(pattern)]
    sources = sorted((place.relative_to(_HOME).as_posix(), s.st_size, s.st_mtime_ns) for place in found if (s := place.stat()))
    return sha256(repr((text, name, sys.version, sources)).encode()).digest()
