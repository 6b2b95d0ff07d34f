"""A bound plan and what it wrote in, the manifest of it out. Sources and results are read once more for it, each from end to end."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

from ..binding.bind import Bound
from ..fault import Fault
from ..inside import place
from ..journal.fingerprint import called, ckptc_version, plan_fingerprint, source_paths
from .digests import digests
from .manifest import FileSum, Manifest, TensorSum, to_text


def write_manifest(bound: Bound, root: str, path: str, workers: int = 2, earlier: Manifest | None = None) -> None:
    """Writes to `path` the manifest of the files of `bound` in the folder `root`. Those of `earlier` that were not written
    again stay in it, with their sources."""
    made = manifest_of(bound, root, workers)
    if earlier is not None:
        files = {file.name: file for file in (*earlier.files, *made.files)}
        sources = dict.fromkeys((*earlier.sources, *made.sources))
        made = replace(made, files=tuple(files[name] for name in sorted(files)), sources=tuple(sorted(sources, key=lambda each: each.name)))
    temporary = f"{path}.partial"  # beside an archive: another one may be written into the same folder
    try:
        with open(temporary, "wb") as file:
            file.write(to_text(made))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with suppress(OSError):
            os.unlink(temporary)
        raise Fault("write-failed", f"{path}: {error.strerror}") from error


def forget(path: str) -> None:
    """Removes the manifest at `path`, if there is one."""
    try:
        if os.path.isfile(path):
            os.unlink(path)
    except OSError as error:
        raise Fault("write-failed", f"{path}: {error.strerror}") from error


def manifest_of(bound: Bound, root: str, workers: int = 2) -> Manifest:
    """The checksums of all that `bound` reads, and of what it wrote to `root`."""
    held: dict[str, list[tuple[int, int, TensorSum]]] = {}
    for file in bound.files:
        for region in file.layout.regions:
            at = file.at + region.at
            tensor = TensorSum(region.name, region.dtype, region.shape, at, region.nbytes, "")
            held.setdefault(file.name, []).append((at, region.nbytes, tensor))

    def written(name: str) -> FileSum:
        tensors = sorted(held.get(name, ()), key=lambda each: each[:2])
        size, whole, parts = digests(place(root, name), [each[:2] for each in tensors])
        sums = (TensorSum(t.name, t.dtype, t.shape, t.at, t.bytes, digest) for (_, _, t), digest in zip(tensors, parts, strict=True))
        return FileSum(name, size, whole, tuple(sums))

    start = os.path.realpath(bound.path)

    def read(path: str) -> FileSum:
        size, whole, _ = digests(path)
        return FileSum(called(path, start), size, whole)

    with ThreadPoolExecutor(max(1, workers)) as pool:
        sources = sorted(pool.map(read, source_paths(bound)), key=lambda each: each.name)
        files = list(pool.map(written, sorted(bound.names)))
    return Manifest(ckptc_version(), plan_fingerprint(bound), tuple(sources), tuple(files))
