"""What a manifest says, and its file: JSON in, frozen data out, and back."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict, dataclass
from typing import Any

from ..fault import Fault
from ..files.window import is_text
from ..inside import why_outside

MANIFEST = "ckptc-manifest.json"
UNFINISHED = f"{MANIFEST}.partial"  # what it is called while it is written
FORMAT, VERSION = "ckptc-manifest", 1
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class TensorSum:
    """A tensor of a file: `bytes` bytes from byte `at`. A digest is a SHA-256 in hexadecimal digits."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    at: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class FileSum:
    """A file, by its name in the checkpoint, with `/`. Of a source file no tensors are told."""

    name: str
    bytes: int
    sha256: str
    tensors: tuple[TensorSum, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """`plan` is the fingerprint of the plan, and `ckptc` the version that made the files from the `sources`."""

    ckptc: str
    plan: str
    sources: tuple[FileSum, ...]
    files: tuple[FileSum, ...]


def to_text(manifest: Manifest) -> bytes:
    record = {"format": FORMAT, "version": VERSION, **asdict(manifest)}
    for each in record["sources"]:
        del each["tensors"]
    return (json.dumps(record, indent=1) + "\n").encode()


def beside(path: str) -> str:
    """Where the manifest of the archive at `path` stands."""
    return f"{path}.{MANIFEST}"


def manifest_place(path: str | os.PathLike[str]) -> str:
    """Where the manifest of the folder or archive at `path` is, or `path` itself if it is a manifest."""
    place = os.path.abspath(os.fspath(path))
    if os.path.isdir(place):
        return os.path.join(place, MANIFEST)
    return place if place.endswith(MANIFEST) else beside(place)


def read_manifest(path: str | os.PathLike[str]) -> tuple[Manifest, str]:
    """The manifest of the folder or archive at `path`, or in the file that it is; and the folder that its names are in.

    Raises `Fault` where there is none, or where it is not whole.
    """
    place = manifest_place(path)
    try:
        with open(place, "rb") as file:
            text = file.read()
    except OSError as error:
        raise Fault("no-manifest", f"{place}: {error.strerror}", help="write one: ckptc convert ... --manifest") from None
    try:
        return _manifest(json.loads(text)), os.path.dirname(place)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise Fault("bad-manifest", f"{place} is not a manifest: {_reason(error)}", help="copy it again") from None


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no {error}"
    return str(error) if type(error) is ValueError else "it is damaged"


def _manifest(record: Any) -> Manifest:
    _need(isinstance(record, dict) and record.get("format") == FORMAT, "it is another file")
    _need(record.get("version") == VERSION, f"it is of version {record.get('version')!r}; this ckptc knows version {VERSION}")
    _need(isinstance(record["ckptc"], str) and isinstance(record["plan"], str), "its plan or version is no text")
    files = tuple(map(_file, record["files"]))
    _need(len({file.name for file in files}) == len(files), "it has a file twice")
    for file in files:
        _need(not (why := why_outside(file.name)), f"`{file.name}` is no file of it: {why}")
    return Manifest(record["ckptc"], record["plan"], tuple(map(_file, record["sources"])), files)


def _file(record: Any) -> FileSum:
    file = FileSum(record["name"], record["bytes"], record["sha256"], tuple(map(_tensor, record.get("tensors", ()))))
    _sum(file)
    ends = [0, *(tensor.at + tensor.bytes for tensor in file.tensors)]
    _need(all(tensor.at >= end for tensor, end in zip(file.tensors, ends, strict=False)), f"the tensors of `{file.name}` overlap")
    _need(ends[-1] <= file.bytes, f"the tensors of `{file.name}` reach beyond it")
    return file


def _tensor(record: Any) -> TensorSum:
    tensor = TensorSum(record["name"], record["dtype"], tuple(record["shape"]), record["at"], record["bytes"], record["sha256"])
    _sum(tensor)
    _need(type(tensor.at) is int and tensor.at >= 0, f"`{tensor.name}` begins at no byte")
    return tensor


def _sum(what: FileSum | TensorSum) -> None:
    _need(isinstance(what.name, str) and is_text(what.name), "a name is no text")
    _need(type(what.bytes) is int and what.bytes >= 0, f"`{what.name}` has no size")
    _need(isinstance(what.sha256, str) and bool(_DIGEST.fullmatch(what.sha256)), f"the checksum of `{what.name}` is none")


def _need(holds: bool, sentence: str) -> None:
    if not holds:
        raise ValueError(sentence)
