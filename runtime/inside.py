"""A name that is to be written in; why it would not lie within the folder that it is written to, out.

There is one rule, and it is asked where names enter (mapping files, plan files, options) and again where files are made.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable

from .fault import Fault

_DRIVE = re.compile(r"[A-Za-z]:")
HELP = "name a file in the checkpoint's folder or below it, such as model/rank_00.pt"


def why_outside(name: str) -> str:
    """Why `name`, relative and with `/`, names no file within a folder; "" where it names one.

    The rule is the same on every system, so that a mapping or a plan means the same everywhere.
    """
    if not name:
        return "it is empty"
    if "\0" in name:
        return "it has a null character"
    if "\\" in name:
        return "it has a backslash; folders are divided by `/`"
    if name.startswith("/"):
        return "it is an absolute path"
    if _DRIVE.match(name):
        return "it begins with a drive's letter"
    parts = name.split("/")
    if ".." in parts:
        return "`..` leads out of the folder"
    if "" in parts or "." in parts:
        return "a part of it is empty"
    return ""


def outside(name: str, why: str) -> Fault:
    """The fault for a name that `why_outside` refuses."""
    return Fault("outside-destination", f"`{name}` is not a file within the destination: {why}", help=HELP)


def place(root: str, name: str) -> str:
    """The path of the file `name` below the folder `root`. Raises `Fault` where it would be elsewhere."""
    if why := why_outside(name):
        raise outside(name, why)
    return os.path.join(root, *name.split("/"))


def confine(names: Iterable[str], merged_into: str | None = None) -> None:
    """Refuses names of files that would not lie within the destination.

    `merged_into` is a folder that is there and that the files go to: what is a link in it may not lead out of it.
    """
    root = os.path.realpath(merged_into) if merged_into is not None else None
    seen: set[str] = set()
    for name in names:
        if why := why_outside(name):
            raise outside(name, why)
        folders = name.split("/")[:-1]
        for depth in range(1, len(folders) + 1 if root is not None else 0):
            folder = "/".join(folders[:depth])
            if folder in seen:
                continue
            seen.add(folder)
            path = os.path.join(str(root), folder)
            if os.path.islink(path) and not _below(os.path.realpath(path), str(root)):
                raise Fault(
                    "outside-destination", f"`{name}` would be written outside {merged_into}: `{folder}` there is a link to {os.path.realpath(path)}",
                    help="remove the link, or write to another folder",
                )  # fmt: skip


def _below(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip(os.sep) + os.sep)
