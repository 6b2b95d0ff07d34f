"""A folder in; which of the checkpoints that a training run keeps in it is the one to read, out.

A tag is a folder with `model/` and markers: `checkpoint` is written when saving begins, `done` when it has ended
(neuronx_distributed/trainer/checkpoint.py). Older releases wrote the newest tag's name to a file `newest` instead.
Megatron-LM's tags are `iter_0000010` and `release`; `latest_checkpointed_iteration.txt` says which is the one, and is
written when it is whole (megatron/training/checkpointing.py).
"""

from __future__ import annotations

import os
import re

from ..fault import Fault
from ..words import count, few

BEGUN, DONE, NEWEST = "checkpoint", "done", "newest"
TRACKER = "latest_checkpointed_iteration.txt"
_ITERATION = re.compile(r"iter_\d{7,}|release")


def choose_tag(path: str) -> str:
    """The newest tag that is complete; "" where `path` is not a folder of tags. Raises `Fault` if none is complete."""
    if not os.path.isdir(path) or os.path.isdir(os.path.join(path, "model")):
        return ""
    iteration = _iteration(path)
    if iteration:
        return iteration
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


def _iteration(path: str) -> str:
    """The folder of a Megatron-LM run that its tracker names; without a tracker, the last one. "" for other folders."""
    tracker = os.path.join(path, TRACKER)
    if not os.path.isfile(tracker):
        there = [name for name in os.listdir(path) if _ITERATION.fullmatch(name) and _has(path, name, "", os.path.isdir)]
        return max(there, key=lambda name: (name != "release", _natural(name)), default="")
    said = _text(tracker)
    tag = "release" if said == "release" else f"iter_{int(said):07}" if said.isdecimal() and len(said) < 19 else ""
    if not tag:
        raise Fault("bad-tracker", f"`{tracker}` says {said[:40]!r}, which is neither an iteration nor `release`", help="name the folder of the iteration itself")
    if not _has(path, tag, "", os.path.isdir):
        raise Fault("missing-file", f"`{tracker}` names `{tag}`, which is not there", help="name the folder of another iteration")
    return tag


def _has(path: str, tag: str, name: str, kind: object = os.path.isfile) -> bool:
    return bool(kind(os.path.join(path, tag, name)))  # type: ignore[operator]


def _newest(path: str) -> str:
    return _text(os.path.join(path, NEWEST))


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(4096).strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _natural(name: str) -> list[tuple[int, int, str]]:
    """A key that orders numbers in names by value."""
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", name)]
