"""A path in; which files hold the checkpoint, and which format reads them, out. Each format is asked in turn."""

from __future__ import annotations

import os

from ..fault import Fault
from ..files.format import Found
from ..files.places import Place
from ..formats.registry import archive_kind, formats
from ..path_names import did_you_mean
from ..situations.situations import names_in, refuse_names, refuse_start


def find(path: str) -> Found:
    """The files of the checkpoint at `path`: a file, an archive or a folder. Raises `Fault` where no format knows it."""
    kind = archive_kind(path) if os.path.isfile(path) else None
    place = Place(path, kind.open(path) if kind is not None else None)
    for format in formats():
        found = format.find(place) if format.find is not None else None
        if found is not None:
            return found
    if not os.path.exists(path):
        raise Fault("no-checkpoint", f"`{path}` does not exist", help=did_you_mean(path))
    if place.is_folder:
        refuse_names(path, names_in(path))
    else:
        name = os.path.basename(path)
        refuse_start(path, name)
        refuse_names(path, [name])
    raise Fault(
        "no-checkpoint", f"`{path}` holds no checkpoint that is known here",
        notes=(
            "looked for: model.safetensors.index.json, *.safetensors, pytorch_model.bin.index.json, *.bin, "
            "model/**/*.pt, *.pt, *.pth, *.ckpt, *.nemo, .metadata, metadata.json",
        ),
    )  # fmt: skip
