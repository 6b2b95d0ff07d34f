"""A folder in; which of the checkpoints that a training run keeps in it is the one to read, out.

A tag is a folder with `model/` and markers: `checkpoint` is written when saving begins, `done` when it has ended
(neuronx_distributed/trainer/checkpoint.py). Older releases wrote the newest tag's name to a file `newest` instead.
"""

from __future__ import annotations

import os
import re

from .fault import Fault
from .match import count, few

BEGUN, DONE, NEWEST = "checkpoint", "done", "newest"


def choose_tag(path: str) -> str:
    """The newest tag that is complete; "" where `path` is not a folder of tags. Raises `Fault` if none is complete."""
    if not os.path.isdir(path) or os.path.isdir(os.path.join(path, "model")):
        return ""
    try:
        names = [name for name in sorted(os.listdir(path), key=_natural) if not name.startswith(".")]
    except OSError:
        return ""  # whoever looks for files says so
    tags = [name for name in names if _has(path, name, "model", os.path.isdir)]
    if not tags:
        return ""
    said = _newest(path)
    if said in tags and (_has(path, said, DONE) or not _has(path, said, BEGUN)):
        return said
    done = [tag for tag in tags if _has(path, tag, DONE)]
    if done:
        return max(done, key=lambda tag: (os.stat(os.path.join(path, tag, DONE)).st_mtime_ns, _natural(tag)))
    if len(tags) == 1 and not _has(path, tags[0], BEGUN):
        return tags[0]  # no training run, so no markers
    raise Fault(
        "no-complete-tag", f"`{path}` holds {count(len(tags), 'checkpoint')}, of which none is marked as complete",
        notes=few(tags), help=f"name the one to read: {os.path.join(path, tags[-1])}",
    )  # fmt: skip


def _has(path: str, tag: str, name: str, kind: object = os.path.isfile) -> bool:
    return bool(kind(os.path.join(path, tag, name)))  # type: ignore[operator]


def _newest(path: str) -> str:
    try:
        with open(os.path.join(path, NEWEST), encoding="utf-8") as file:
            return file.read(4096).strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key that orders numbers in names by value."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", name)]
