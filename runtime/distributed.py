"""Which distributed checkpoint a folder or an archive holds, and its tensors.

    metadata.json, .metadata, ...                    Megatron-core, also within a run's iter_0000010/
    weights/...     and context/                     NeMo 2
    model_weights/... and model_config.yaml          NeMo 1, in an archive or unpacked
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any, Protocol

from .fault import Fault
from .read_window import read_at
from .stacked import DISTRIBUTED
from .torch_dist import BLOBS, METADATA, Distributed, Place, read_torch_dist
from .zarr_files import read_zarr

FOLDERS = ("", "weights/", "model_weights/")
BESIDE = {"weights": "context", "model_weights": "model_config.yaml"}  # what says that such a folder is a part of the one around it
KIND = "metadata.json"


class Files(Protocol):
    """A folder, or an archive: the names of its files, and where one's bytes are."""

    def has(self, name: str) -> bool: ...
    def ends(self, folder: str, suffix: str) -> bool:
        """Whether a file directly in `folder` has this suffix."""
        ...

    def names(self, folder: str) -> Iterable[str]: ...
    def place(self, name: str) -> tuple[str, int, int]: ...


class Folder:
    """The files in and below `root`."""

    def __init__(self, root: str) -> None:
        self.root = root

    def has(self, name: str) -> bool:
        return os.path.isfile(os.path.join(self.root, name))

    def ends(self, folder: str, suffix: str) -> bool:
        try:
            return any(name.endswith(suffix) for name in os.listdir(os.path.join(self.root, folder)))
        except OSError:
            return False

    def names(self, folder: str) -> Iterable[str]:
        start = os.path.join(self.root, folder)
        for inner, _, files in os.walk(start):
            for name in files:
                yield os.path.relpath(os.path.join(inner, name), start).replace(os.sep, "/")

    def place(self, name: str) -> tuple[str, int, int]:
        path = os.path.join(self.root, *name.split("/"))
        return path, 0, os.stat(path).st_size


class Members:
    """The members of an archive at `path`, which `places` has by name: the first byte, and how many."""

    def __init__(self, path: str, places: dict[str, tuple[int, int]]) -> None:
        self.path, self.places = path, places

    def has(self, name: str) -> bool:
        return name in self.places

    def ends(self, folder: str, suffix: str) -> bool:
        return any(name.endswith(suffix) and "/" not in name for name in self.names(folder))

    def names(self, folder: str) -> Iterable[str]:
        return (name.removeprefix(folder) for name in self.places if name.startswith(folder))

    def place(self, name: str) -> tuple[str, int, int]:
        return self.path, *self.places[name]


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


def _content(place: Place, name: str) -> Any:
    path, at, nbytes = place(name)
    try:
        return json.loads(bytes(read_at(path, at, min(nbytes, 1 << 20))))
    except (ValueError, RecursionError):
        return None


def read_distributed(files: Files, backend: str, folder: str) -> Distributed:
    """The tensors of the distributed checkpoint in `folder`."""
    if backend == "zarr":
        return read_zarr(files.place, folder, files.names(folder))
    return read_torch_dist(files.place, folder)
