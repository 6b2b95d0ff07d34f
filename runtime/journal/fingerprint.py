"""A bound plan in; what its output depends on out: a digest of the plan, and the size, time and ends of every source file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..binding.bind import Bound
from ..fault import Fault
from ..files.window import SideFile, Window, parts_of
from ..plan.plan_file import dump_plan

ENDS_BYTES = 64 << 10  # of a file's beginning and of its end: headers and directories stand there


@dataclass(frozen=True)
class Source:
    """A file that is read. `ends` is the SHA-256 of its first and its last `ENDS_BYTES`; `modified` is in nanoseconds."""

    path: str
    size: int
    modified: int
    ends: str


def ckptc_version() -> str:
    """The version of the installed package; "unknown" where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ckptc")
    except PackageNotFoundError:
        return "unknown"


def plan_fingerprint(bound: Bound) -> str:
    """A SHA-256 of all that decides what is written, but for the bytes of the sources and where the files of the user lie.

    It covers the plan, the form of every file that is written, and which bytes of which source go into it.
    """
    digest = hashlib.sha256()

    def say(*words: object) -> None:
        digest.update(repr(words).encode() + b"\n")

    say("ckptc", ckptc_version())
    digest.update(dump_plan(bound.plan).encode())
    for file in bound.files:
        say("file", file.name, file.at, file.layout.size)
        for region in file.layout.regions:
            say(region.name, region.dtype, region.shape, region.at, region.nbytes, hashlib.sha256(region.lead).hexdigest())
    for put in bound.puts:
        what = put.content
        say("put", put.file, put.at, put.nbytes, what.at if isinstance(what, SideFile) else hashlib.sha256(what).hexdigest())
    names = _names(bound)
    for window in bound.windows:
        say("window", *_said(window, names) if window is not None else ())
    return digest.hexdigest()


def _said(window: Window, names: Mapping[str, str]) -> tuple[object, ...]:
    """All that decides which elements a window has: its place, or those of its tiles, or codes and scales and how they are paired."""
    if (coded := window.coded) is not None:
        return "coded", window.dtype, coded.block, coded.first, _said(coded.codes, names), _said(coded.scales, names)
    if window.tiles:
        return "tiles", window.shape, *((tile.first, _said(tile.window, names)) for tile in window.tiles)
    return names[window.path], window.at, window.shape, window.strides, window.dtype


def _names(bound: Bound) -> dict[str, str]:
    """What each source path is called, wherever the checkpoint lies."""
    root = os.path.realpath(bound.path)
    found: dict[str, str] = {}
    for window in bound.windows:
        for part in parts_of(window) if window is not None else ():
            if part.path not in found:
                found[part.path] = "made" if part.path == bound.made_path else called(part.path, root)
    return found


def called(path: str, root: str) -> str:
    """A path relative to the checkpoint `root`, with `/`, or its last name where it lies elsewhere."""
    real = os.path.realpath(path)
    inside = os.path.relpath(real, root if os.path.isdir(root) else os.path.dirname(root))
    return os.path.basename(real) if inside.startswith("..") else inside.replace(os.sep, "/")


def sources_of(bound: Bound) -> tuple[Source, ...]:
    """All files that a run reads, each once, as they are now."""
    return tuple(source(path) for path in source_paths(bound))


def source_paths(bound: Bound) -> tuple[str, ...]:
    """The real paths of all files that a run reads. A compressed archive stands for what it was decompressed to."""
    return tuple(sorted({os.path.realpath(path) for path in _read(bound)}))


def _read(bound: Bound) -> Iterable[str]:
    yield from bound.stamps
    if bound.spool_path:
        yield bound.path


def source(path: str) -> Source:
    """The file at `path`, as it is now."""
    try:
        with open(path, "rb") as file:
            facts = os.fstat(file.fileno())
            digest = hashlib.sha256(file.read(ENDS_BYTES))
            if facts.st_size > ENDS_BYTES:
                file.seek(max(ENDS_BYTES, facts.st_size - ENDS_BYTES))
                digest.update(file.read(ENDS_BYTES))
    except OSError as error:
        raise Fault("read-failed", f"{path}: {error.strerror}") from None
    return Source(path, facts.st_size, facts.st_mtime_ns, digest.hexdigest())
