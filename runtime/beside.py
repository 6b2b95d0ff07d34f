"""Files of a checkpoint in, those that stand beside its tensors out."""

from __future__ import annotations

import os

from .distributed import KIND
from .find_files import CONTAINER_OF, Found, is_hidden
from .torch_dist import BLOBS
from .window import SideFile

CONTEXT = "context/"  # what NeMo 2 keeps beside its weights


def beside(found: Found) -> tuple[SideFile, ...]:
    """Files directly in the folder, or anywhere in the archive, that hold no weights and do not say where weights are."""
    path = found.root
    if found.one:
        return ()
    if found.archive is not None:
        members = [
            m for m in found.archive.members.values()
            if m.name not in found.files and not is_hidden(m.name.rsplit("/", 1)[-1]) and not (found.distributed and m.name.startswith(found.distributed))
        ]  # fmt: skip
        return tuple(SideFile(m.name, found.archive.path, m.at, m.nbytes) for m in members)
    names = [*sorted(os.listdir(path)), *(_below(path, CONTEXT) if found.distributed else ())]
    return tuple(
        SideFile(name, os.path.join(path, name), 0, os.stat(os.path.join(path, name)).st_size)
        for name in names
        if not is_hidden(name.rsplit("/", 1)[-1])
        and name not in found.files
        and not (found.distributed == "" and (name == KIND or name.endswith(BLOBS)))
        and os.path.splitext(name)[1] not in CONTAINER_OF
        and not name.endswith(".index.json")
        and os.path.isfile(os.path.join(path, name))
    )


def _below(root: str, folder: str) -> list[str]:
    """The files in `folder` and in the folders of it, such as a tokenizer's, relative to `root`."""
    return sorted(os.path.relpath(os.path.join(inner, name), root) for inner, _, names in os.walk(os.path.join(root, folder)) for name in names)
