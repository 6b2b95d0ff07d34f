"""Target files while they are written: always in ascending order, headers and checksums included."""

from __future__ import annotations

import errno
import os
import threading
import zlib
from collections.abc import Sequence

from .bind import Bound
from .crc import combine
from .fault import Fault
from .schedule import Task

_MOST_VECTORS = 512


class Cancelled(Exception):
    """Another worker failed."""


class _File:
    def __init__(self, path: str, regions: int) -> None:
        self.path, self.number = path, -1
        self.crcs = [0] * regions
        self.left = regions
        self.turn = 0  # tickets taken and given back
        self.tickets = 0  # tickets handed out


class Targets:
    """The files of a run below `root`. A task has one ticket per file it writes; tickets are served in task order,
    so the lowest unfinished task never waits."""

    def __init__(self, bound: Bound, root: str, tasks: Sequence[Task]) -> None:
        self.bound, self.root = bound, root
        self.stopped = False
        self._ready = threading.Condition()
        self._files = [_File(os.path.join(root, f.name), len(f.targets)) for f in bound.files]
        self._tickets: list[dict[int, int]] = []
        for task in tasks:
            held: dict[int, int] = {}
            for job, _, _ in task.items:
                for members in job.members:
                    for target in members:
                        number = bound.tensors[target].file
                        if number not in held:
                            held[number] = self._files[number].tickets
                            self._files[number].tickets += 1
            self._tickets.append(held)

    def write(self, number: int, task: Task, window: memoryview) -> int:
        """Writes what a task computed into `window`; the bytes written."""
        pieces: dict[int, list[tuple[int, int, memoryview, int]]] = {}
        tensors, files = self.bound.tensors, self.bound.files
        for job, chunk_number, base in task.items:
            chunk = job.recipe.piece(chunk_number)
            last = chunk_number == job.recipe.chunks - 1
            for members, (at, size, start) in zip(job.members, chunk.parts, strict=True):
                data = window[base + at : base + at + size]
                known: int | None = None
                for target in members:
                    tensor = tensors[target]
                    if known is None and files[tensor.file].layout.needs_crc:
                        known = zlib.crc32(data)
                    pieces.setdefault(tensor.file, []).append(
                        (tensor.region, start if not last else ~start, data, known or 0)
                    )
        done = 0
        for file_number, turn in self._tickets[number].items():
            done += self._write_file(file_number, turn, pieces[file_number])
        return done

    def _write_file(self, number: int, turn: int, pieces: list[tuple[int, int, memoryview, int]]) -> int:
        file, layout = self._files[number], self.bound.files[number].layout
        with self._ready:
            while file.turn != turn and not self.stopped:
                self._ready.wait()
        if self.stopped:
            raise Cancelled
        try:
            if file.number < 0:
                self._open(file)
            vectors: list[memoryview | bytes] = []
            first = end = -1
            done = 0
            for region_number, start, data, crc in pieces:
                region = layout.regions[region_number]
                last, start = start < 0, ~start if start < 0 else start
                at = region.at + start
                if start == 0:
                    vectors_at = at - len(region.lead)
                    bytes_before: list[memoryview | bytes] = [region.lead] if region.lead else []
                    file.crcs[region_number] = crc
                else:
                    vectors_at, bytes_before = at, []
                    if layout.needs_crc:
                        file.crcs[region_number] = combine(file.crcs[region_number], crc, len(data))
                if vectors and (vectors_at != end or len(vectors) > _MOST_VECTORS):
                    done += _write_all(file, vectors, first)
                    vectors = []
                if not vectors:
                    first = vectors_at
                vectors += bytes_before
                vectors.append(data)
                end = at + len(data)
                if last:
                    trail = layout.trail(region_number, file.crcs[region_number])
                    if trail:
                        vectors.append(trail)
                        end += len(trail)
                    file.left -= 1
            if file.left == 0:
                tail = layout.tail(file.crcs)
                if tail:
                    vectors.append(tail)
            done += _write_all(file, vectors, first)
            if file.left == 0:
                os.close(file.number)
                file.number = -1
        except OSError as error:
            raise self._fault(file, error) from error
        with self._ready:
            file.turn += 1
            self._ready.notify_all()
        return done

    def _open(self, file: _File) -> None:
        os.makedirs(os.path.dirname(file.path), exist_ok=True)
        file.number = os.open(file.path, os.O_WRONLY | os.O_CREAT, 0o666)

    def _fault(self, file: _File, error: OSError) -> Fault:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return Fault(
                "disk-full",
                f"{file.path}: {error.strerror}; the whole output needs {self.bound.disk_need:,} bytes",
                help="free some space, or write to another disk",
            )
        return Fault("write-failed", f"{file.path}: {error.strerror}")

    def stop(self) -> None:
        """Wakes every waiting worker; they end with `Cancelled`."""
        with self._ready:
            self.stopped = True
            self._ready.notify_all()

    def close(self) -> None:
        for file in self._files:
            if file.number >= 0:
                os.close(file.number)
                file.number = -1


def _write_all(file: _File, vectors: list[memoryview | bytes], at: int) -> int:
    total = sum(len(vector) for vector in vectors)
    if total == 0:
        return 0
    done = os.pwritev(file.number, vectors, at)
    while done < total:
        whole = b"".join(vectors) if len(vectors) > 1 else vectors[0]
        view = memoryview(whole)
        n = os.pwrite(file.number, view[done:], at + done)
        done += n
    return total
