"""A bound plan in, the same as one .nemo archive out: every header, text and torch file at its place in a tar.

Members stand as NeMo has them: the folder `.`, then by name, a rank's folder before what is in it. The torch files are
laid down where they lie in the archive, so writing them is no different from writing files of their own. The same holds
for the files of a distributed checkpoint, which an archive has in its folder `model_weights`.
"""

from __future__ import annotations

import os
import tarfile
from dataclasses import replace
from typing import TypeAlias

from .bind import Bound
from .fault import Fault
from .layout import Put, TargetFile
from .nemo_archive import SUFFIX
from .stacked import DISTRIBUTED
from .tar_members import BLOCK
from .window import SideFile

DISTRIBUTED_WEIGHTS = "model_weights"
# Endings of files that hold tensors. Folders are called .ckpt in training runs.
ONE_FILE = (".safetensors", ".bin", ".pt", ".pth")
Content: TypeAlias = int | bytes | SideFile  # a number is of `Bound.files`


def bound_for(bound: Bound, out: str | os.PathLike[str]) -> Bound:
    """What is written to `out`: one archive where its name ends in .nemo, files in a folder where not.

    Raises `Fault` where the name is that of one file, and a folder of it would be made.
    """
    name = os.path.basename(os.fspath(out))
    if name.endswith(ONE_FILE) and not os.path.isdir(out):
        raise Fault(
            "folder-as-file", f"{os.fspath(out)} would be a folder: a checkpoint is written as several files",
            help=f"name a folder; where all tensors are to be in one file: --single-file {name}, and a folder for it",
        )  # fmt: skip
    if not name.endswith(SUFFIX) or bound.around:
        return bound
    side = bound.plan.target
    distributed = side.format in DISTRIBUTED and all(file.name.startswith(f"{DISTRIBUTED_WEIGHTS}/") for file in bound.files)
    if side.format != "nemo" and not distributed:
        raise Fault(
            "not-an-archive", f"{os.fspath(out)} would be an archive, and layout `{side.layout}` is written to {side.format} files",
            help="name a folder as the destination, or choose a layout or --format that lives in .nemo archives",
        )  # fmt: skip
    return _pack(bound, name)


def _pack(bound: Bound, archive: str) -> Bound:
    contents: dict[str, Content] = {file.name: i for i, file in enumerate(bound.files)}
    others: list[tuple[str, Content]] = [*bound.texts, *((each.name, each) for each in bound.carried)]
    for name, content in others:
        if name in contents:
            raise Fault("duplicate-file", f"{archive} would hold `{name}` twice", help="choose another name for one of them")
        contents[name] = content
    files: list[TargetFile] = list(bound.files)
    puts: list[Put] = []
    known = bytearray(tar_header("", 0, folder=True))  # bytes that end at `at`
    at = len(known)
    inside: set[str] = set()

    def say(data: bytes) -> None:
        nonlocal at
        known.extend(data)
        at += len(data)

    def settle(content: bytes | SideFile | None, nbytes: int) -> None:
        """What was said so far gets its place, and what lies behind it."""
        nonlocal at
        puts.append(Put(archive, at - len(known), bytes(known)))
        known.clear()
        if content is not None:
            puts.append(Put(archive, at, content))
        at += nbytes

    for name in sorted(contents, key=lambda each: each.split("/")):
        for folder in (name[:i] for i, letter in enumerate(name) if letter == "/"):
            if folder not in inside:
                inside.add(folder)
                say(tar_header(folder, 0, folder=True))
        content = contents[name]
        nbytes = _size(bound, content)
        say(tar_header(name, nbytes))
        if isinstance(content, bytes):
            say(content)
        elif isinstance(content, SideFile):
            settle(content, nbytes)
        else:
            settle(None, nbytes)
            files[content] = replace(files[content], name=archive, at=at - nbytes)
        say(bytes(-nbytes % BLOCK))
    end = 2 * BLOCK
    say(bytes(end + -(at + end) % tarfile.RECORDSIZE))
    settle(None, 0)
    return replace(bound, files=tuple(files), texts=(), carried=(), around=tuple(puts))


def _size(bound: Bound, content: Content) -> int:
    if isinstance(content, int):
        return bound.files[content].layout.size
    return len(content) if isinstance(content, bytes) else content.nbytes


def tar_header(name: str, nbytes: int, *, folder: bool = False, time: int = 0) -> bytes:
    """The header of a member `./name`, with PAX records where the plain one cannot say its size or name."""
    info = tarfile.TarInfo(f"./{name}" if name else ".")
    info.size, info.mtime = nbytes, time
    info.type, info.mode = (tarfile.DIRTYPE, 0o755) if folder else (tarfile.REGTYPE, 0o644)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
