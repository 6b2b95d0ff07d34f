"""A bound plan and what it wrote in, the manifest of it out. Sources and results are read once more for it, each from end to end."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

from ..binding.bind import Bound
from ..fault import Fault
from ..inside import place
from ..journal.fingerprint import called, ckptc_version, plan_fingerprint, source_paths
from .digests import digests
from .manifest import MANIFEST, FileSum, Manifest, TensorSum, beside, to_text


def write_manifest(bound: Bound, root: str, workers: int = 2) -> str:
    """Writes the manifest of the files of `bound` in the folder `root`; its path."""
    return _write(os.path.join(root, MANIFEST), manifest_of(bound, root, workers))


def write_beside(bound: Bound, archive: str, workers: int = 2) -> str:
    """Writes the manifest of an archive beside it; its path."""
    return _write(beside(archive), manifest_of(bound, os.path.dirname(archive), workers))


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


def _write(path: str, manifest: Manifest) -> str:
    temporary = f"{path}.partial"
    try:
        with open(temporary, "wb") as file:
            file.write(to_text(manifest))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise Fault("write-failed", f"{path}: {error.strerror}") from error
    return path
