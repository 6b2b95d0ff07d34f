"""Files of a checkpoint in, those that stand beside its tensors out."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase

from ..files.format import Found
from ..files.places import is_hidden
from ..files.window import SideFile
from ..formats.registry import formats


def beside(found: Found) -> tuple[SideFile, ...]:
    """Files directly in the folder, or anywhere in the archive, that hold no weights and do not say where weights are."""
    path = found.root
    if found.one:
        return ()
    if found.archive is not None:
        members = [
            m for m in found.archive.members.values()
            if m.name not in found.files and not is_hidden(m.name.rsplit("/", 1)[-1]) and not (found.folder and m.name.startswith(found.folder))
        ]  # fmt: skip
        return tuple(SideFile(m.name, found.archive.path, m.at, m.nbytes) for m in members)
    suffixes = tuple(suffix for format in formats() for suffix in format.suffixes)
    names = [*sorted(os.listdir(path)), *(name for folder in found.with_folders for name in _below(path, folder))]
    return tuple(
        SideFile(name, os.path.join(path, name), 0, os.stat(os.path.join(path, name)).st_size)
        for name in names
        if not is_hidden(name.rsplit("/", 1)[-1])
        and name not in found.files
        and not any(fnmatchcase(name, glob) for glob in found.own)
        and not name.endswith((*suffixes, ".index.json"))
        and os.path.isfile(os.path.join(path, name))
    )


def _below(root: str, folder: str) -> list[str]:
    """The files in `folder` and in the folders of it, such as a tokenizer's, relative to `root`."""
    return sorted(os.path.relpath(os.path.join(inner, name), root) for inner, _, names in os.walk(os.path.join(root, folder)) for name in names)
