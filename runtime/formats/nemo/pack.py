"""Files in, one .nemo archive of them out: every header, text and torch file at its place in a tar.

Members stand as NeMo has them: the folder `.`, then by name, a rank's folder before what is in it. The torch files are
laid down where they lie in the archive, so writing them is no different from writing files of their own. The same holds
for the files of a distributed checkpoint, which an archive has in its folder `model_weights`.
"""

from __future__ import annotations

import tarfile
from collections.abc import Container, Sequence
from dataclasses import replace
from typing import TypeAlias

from ...fault import Fault
from ...files.file_layout import Put, TargetFile
from ...files.window import SideFile
from .archive import CONFIG
from .tar_members import BLOCK

DISTRIBUTED_WEIGHTS = "model_weights"
DISTRIBUTED = ("torch_dist", "zarr")
Content: TypeAlias = int | bytes | SideFile  # a number is of the files of tensors


def holds(format: str, files: Sequence[str]) -> bool:
    """Whether an archive holds files of this format, called so."""
    return format == "nemo" or (format in DISTRIBUTED and all(name.startswith(f"{DISTRIBUTED_WEIGHTS}/") for name in files))


def holds_beside(format: str, texts: Container[str]) -> bool:
    """Whether files in `format`, and the `texts` beside them, are what an archive holds, packed or unpacked."""
    return format == "nemo" or (format in DISTRIBUTED and CONFIG in texts)


def pack(
    archive: str, laid_out: Sequence[TargetFile], beside: Sequence[tuple[str, bytes | SideFile]]
) -> tuple[list[TargetFile], list[Put]]:
    """The files of tensors, each at its place in the archive, and all else that the archive consists of.

    Raises `Fault` if two of what it would hold have one name.
    """
    contents: dict[str, Content] = {file.name: i for i, file in enumerate(laid_out)}
    for name, given in beside:
        if name in contents:
            raise Fault("duplicate-file", f"{archive} would hold `{name}` twice", help="choose another name for one of them")
        contents[name] = given
    files: list[TargetFile] = list(laid_out)
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
        nbytes = _size(laid_out, content)
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
    return files, puts


def _size(files: Sequence[TargetFile], content: Content) -> int:
    if isinstance(content, int):
        return files[content].layout.size
    return len(content) if isinstance(content, bytes) else content.nbytes


def tar_header(name: str, nbytes: int, *, folder: bool = False, time: int = 0) -> bytes:
    """The header of a member `./name`, with PAX records where the plain one cannot say its size or name."""
    info = tarfile.TarInfo(f"./{name}" if name else ".")
    info.size, info.mtime = nbytes, time
    info.type, info.mode = (tarfile.DIRTYPE, 0o755) if folder else (tarfile.REGTYPE, 0o644)
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
