"""The format `nemo`: torch files in a .nemo archive, or in the folder that one was unpacked to; and the kind of archive."""

from __future__ import annotations

import os

from ...fault import Fault
from ...files.format import ArchiveKind, Contents, Format, Found, LaidOut, Tensors
from ...files.places import Place
from ...situations.situations import refuse_names
from ..megatron.rank_file import chunks_of
from ..torch.lay_out import lay_out_torch_files
from ..torch.torch_file import read_torch_file
from .archive import CONFIG, SUFFIX, open_archive, plain_name, unwrap, weights_of
from .pack import holds, holds_beside, pack
from .training_run import read_settings


def _find(place: Place) -> Found | None:
    if place.archive is not None:
        return _in_archive(place)
    if not place.is_folder or CONFIG not in (names := place.names()):
        return None
    unpacked = weights_of(place.path, _two_deep(place.path, names))
    if unpacked:
        return Found(place.path, "pt", unpacked, flat=False)
    if "model_weights" in names:
        raise Fault(
            "no-checkpoint", f"`{place.path}` holds `model_weights`, which is no distributed checkpoint that is known here",
            notes=("neither its metadata.json nor a .metadata says what it is",), help="download or copy it again",
        )  # fmt: skip
    return None


def _in_archive(place: Place) -> Found:
    assert place.archive is not None
    path, members = place.path, place.archive.members
    files = weights_of(path, members)
    if not files:
        refuse_names(path, members)
        inner = {name.partition("/")[0] for name in members if "/" in name}
        packed = len(inner) == 1 and f"{min(inner)}/{CONFIG}" in members
        raise Fault(
            "no-checkpoint", f"`{path}` holds no `model_weights.ckpt`", notes=tuple(f"it holds {name}" for name in list(members)[:5]),
            help=f"its members lie in a folder `{min(inner)}`: unpack it, and name that folder" if packed else "",
        )  # fmt: skip
    return Found(path, "nemo", files, flat=False, archive=place.archive)


def _two_deep(root: str, names: list[str]) -> list[str]:
    """The files of a folder and of the folders in it."""
    found = []
    for name in names:
        inner = os.path.join(root, name)
        try:
            found += [f"{name}/{each}" for each in sorted(os.listdir(inner))] if os.path.isdir(inner) else [name]
        except OSError as problem:
            raise Fault("unreadable-file", f"`{inner}` cannot be listed: {problem.strerror}") from None
    return found


def _read(found: Found) -> Contents:
    entries, others = [], []
    for file in found.files:
        path, at, nbytes = found.place(file)
        content = read_torch_file(path, file, at, nbytes, chunks_of)
        entries += content.entries
        others += [(file, key) for key in content.others]
    holding = {entry.file for entry in entries}
    return Contents(found.format, entries, others, [file for file in found.files if file not in holding])


def _lay_out(tensors: Tensors) -> LaidOut:
    return lay_out_torch_files(tensors, "model_weights", "ckpt", one=True)


FORMAT = Format("nemo", _lay_out, _find, _read)
ARCHIVE = ArchiveKind(SUFFIX, CONFIG, open_archive, holds, holds_beside, pack, unwrap, read_settings, plain_name)
