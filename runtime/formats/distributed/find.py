"""Which distributed checkpoint a folder or an archive holds, and its tensors.

    metadata.json, .metadata, ...                    Megatron-core, also within a run's iter_0000010/
    weights/...     and context/                     NeMo 2
    model_weights/... and model_config.yaml          NeMo 1, in an archive or unpacked
"""

from __future__ import annotations

import json
import os
from typing import Any

from ...fault import Fault
from ...files.format import Found
from ...files.places import Files, Folder, Place
from ...files.read_window import read_at
from .torch_dist_read import BLOBS, METADATA, Stretch

FOLDERS = ("", "weights/", "model_weights/")
BESIDE = {"weights": "context", "model_weights": "model_config.yaml"}  # what says that such a folder is a part of the one around it
KIND = "metadata.json"
CONTEXT = "context/"  # what NeMo 2 keeps beside its weights
DISTRIBUTED = ("torch_dist", "zarr")


def find_backend(place: Place, backend: str) -> Found | None:
    """The distributed checkpoint in a folder or an archive, if it is of this backend."""
    if place.is_file or (place.archive is None and not place.is_folder):
        return None
    held = find_distributed(place.files, place.path)
    if held is None or held[0] != backend:
        return None
    own = (KIND, f"*{BLOBS}") if held[1] == "" else ()
    folders = (CONTEXT,) if place.archive is None else ()
    return Found(place.path, backend, (), flat=True, archive=place.archive, folder=held[1], own=own, with_folders=folders)


def find_distributed(files: Files, path: str) -> tuple[str, str] | None:
    """The backend and the folder of the distributed checkpoint that there is, or None. `path` is what faults name."""
    for folder in FOLDERS:
        backend = _backend(files, folder, path)
        if backend is not None:
            return backend, folder
    return None


def around(path: str) -> str:
    """The folder of the whole checkpoint, where `path` is the folder that NeMo has its distributed files in."""
    folder, name = os.path.split(os.path.abspath(path))
    other = BESIDE.get(name)
    if other is None or os.path.exists(os.path.join(path, other)) or not os.path.exists(os.path.join(folder, other)):
        return path
    held = find_distributed(Folder(folder), path)
    return os.path.dirname(path.rstrip(os.sep)) or folder if held is not None and held[1] == f"{name}/" else path


def _backend(files: Files, folder: str, path: str) -> str | None:
    if files.has(folder + KIND):
        said = _content(files.place, folder + KIND)
        backend = said.get("sharded_backend") if isinstance(said, dict) else None
        if backend == "torch_dist" and not files.has(folder + METADATA):
            raise _without_metadata(folder, path)
        if backend in DISTRIBUTED:
            return str(backend)
        if backend is not None:
            raise Fault("unknown-format", f"`{folder}{KIND}` of `{path}` says that its format is {backend!r}; {' and '.join(DISTRIBUTED)} are read here")
    if files.has(folder + METADATA):
        return "torch_dist"
    if files.ends(folder, BLOBS):
        raise _without_metadata(folder, path)
    return None


def _without_metadata(folder: str, path: str) -> Fault:
    return Fault(
        "missing-file", f"`{folder}{METADATA}` of `{path}` is not there, which says where each tensor is",
        help="download or copy it again; patterns such as * leave out files whose names begin with a dot",
    )  # fmt: skip


def _content(place: Stretch, name: str) -> Any:
    path, at, nbytes = place(name)
    try:
        return json.loads(bytes(read_at(path, at, min(nbytes, 1 << 20))))
    except (ValueError, RecursionError):
        return None
