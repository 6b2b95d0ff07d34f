"""Syntax trees of mapping files, kept between runs in the user's cache folder: a warm start needs no grammar.

A cache file is believed only where its key fits: text, name, Python, and the sources of the language. Reading one
makes nodes of `dsl.tree` and plain values, and nothing else can come of it. Whatever goes wrong, the text is parsed.
"""

from __future__ import annotations

import io
import os
import pickle
import sys
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

from ..dsl import tree

OFF = "CKPTC_NO_CACHE"
_HOME = Path(tree.__file__).parent


class _Trees(pickle.Unpickler):
    """Makes dataclasses of `dsl.tree` only."""

    def find_class(self, module: str, name: str) -> Any:
        found = getattr(tree, name, None)
        if module != tree.__name__ or not isinstance(found, type) or not hasattr(found, "__dataclass_fields__"):
            raise pickle.UnpicklingError(f"{module}.{name} is no node of a mapping")
        return found


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
        found = _Trees(io.BytesIO(stored[len(key) :])).load()
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
            file.write(_key(text, name) + pickle.dumps(mapping, protocol=5))
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
    sources = sorted((e.name, s.st_size, s.st_mtime_ns) for e in os.scandir(_HOME) if e.is_file() and (s := e.stat()))
    return sha256(repr((text, name, sys.version, sources)).encode()).digest()
