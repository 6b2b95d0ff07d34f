"""A bound plan and where it goes in, the same plan as one archive out, where the name is that of an archive."""

from __future__ import annotations

import os
from dataclasses import replace

from ..fault import Fault
from ..formats.registry import archive_kind, formats
from .bind import Bound

_FOLDERS_TOO = (".ckpt",)  # folders are called so in training runs


def bound_for(bound: Bound, out: str | os.PathLike[str]) -> Bound:
    """What is written to `out`: one archive where its name is that of one, such as `x.nemo`, and files in a folder where not.

    Raises `Fault` where the name is that of one file, and a folder of it would be made.
    """
    name = os.path.basename(os.fspath(out))
    suffixes = tuple(suffix for format in formats() for suffix in format.suffixes if suffix not in _FOLDERS_TOO)
    if name.endswith(suffixes) and not os.path.isdir(out):
        raise Fault(
            "folder-as-file", f"{os.fspath(out)} would be a folder: a checkpoint is written as several files",
            help=f"name a folder; where all tensors are to be in one file: --single-file {name}, and a folder for it",
        )  # fmt: skip
    kind = archive_kind(name)
    if kind is None or bound.around:
        return bound
    side = bound.plan.target
    if not kind.holds(side.format, [file.name for file in bound.files]):
        raise Fault(
            "not-an-archive", f"{os.fspath(out)} would be an archive, and layout `{side.layout}` is written to {side.format} files",
            help="name a folder as the destination, or choose a layout or --format that lives in .nemo archives",
        )  # fmt: skip
    files, puts = kind.pack(name, bound.files, [*bound.texts, *((each.name, each) for each in bound.carried)])
    return replace(bound, files=tuple(files), texts=(), carried=(), around=tuple(puts))
