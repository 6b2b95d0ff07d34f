"""A result with a manifest in, what is not as the manifest says out. Nothing else is needed: no source, no mapping, no config."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..formats.registry import formats
from ..inside import place
from .digests import digests
from .manifest import MANIFEST, FileSum, manifest_place, read_manifest


@dataclass(frozen=True)
class Finding:
    """`code` is missing-file, other-size, other-bytes or extra-file. `tensors` are the names of those in the file that differ.

    `sentence` says it to a person.
    """

    code: str
    file: str
    sentence: str
    tensors: tuple[str, ...] = ()


def check_manifest(path: str | os.PathLike[str], workers: int = 2) -> tuple[Finding, ...]:
    """What differs between the files at `path`, a folder or an archive, and its manifest; () where nothing does.

    Every file is read once. Raises `Fault` where there is no manifest, where it is damaged, or where a file cannot be read.
    """
    manifest, root = read_manifest(path)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        found = [each for each in pool.map(lambda file: _check(root, file), manifest.files) if each is not None]
    of_archive = os.path.basename(manifest_place(path)) != MANIFEST
    return (*found, *(() if of_archive else _extra(root, {file.name for file in manifest.files})))


def _check(root: str, file: FileSum) -> Finding | None:
    path = place(root, file.name)
    if not os.path.isfile(path):
        return Finding("missing-file", file.name, f"`{file.name}` is not there", tuple(tensor.name for tensor in file.tensors))
    size, whole, parts = digests(path, [(tensor.at, tensor.bytes) for tensor in file.tensors])
    if whole == file.sha256 and size == file.bytes:
        return None
    differ = tuple(t.name for t, digest in zip(file.tensors, parts, strict=True) if digest != t.sha256)
    if size != file.bytes:
        return Finding("other-size", file.name, f"`{file.name}` has {size:,} bytes, not {file.bytes:,}", differ)
    few = ", ".join(f"`{name}`" for name in differ[:3]) + (f" and {len(differ) - 3} more" if len(differ) > 3 else "")
    what = f"in {few}" if differ else "beside its tensors"
    return Finding("other-bytes", file.name, f"`{file.name}` has other bytes than were written, {what}", differ)


def _extra(root: str, names: set[str]) -> list[Finding]:
    """Files of tensors that the manifest does not know: a stale shard would be read along."""
    suffixes = tuple(suffix for format in formats() for suffix in format.suffixes)
    found = []
    for folder, _, files in os.walk(root):
        for file in files:
            name = os.path.relpath(os.path.join(folder, file), root).replace(os.sep, "/")
            if name.endswith(suffixes) and name not in names:
                found.append(Finding("extra-file", name, f"`{name}` is not in the manifest"))
    return sorted(found, key=lambda each: each.file)
