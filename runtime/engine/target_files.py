"""Target files while they are written: always in ascending order, headers and checksums included."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from ..binding.bind import Bound
from ..fault import Fault
from ..files.crc import combine, crc32
from ..files.file_layout import FileLayout
from ..files.file_system import reserve
from ..files.gather import Gather
from ..inside import place
from ..journal.partial import Journal
from .copy_range import Copier
from .schedule import Job, Task

_MOST_VECTORS = 512


@dataclass(frozen=True)
class _Piece:
    """A stretch of a region: where in its bytes, and whether it is its first or last."""

    region: int
    start: int
    data: memoryview
    crc: int
    first: bool
    last: bool
    lifted: tuple[_Run, ...]


@dataclass(frozen=True)
class _Run:
    """Bytes of a piece that are still in the source."""

    start: int
    size: int
    path: str | Gather
    at: int


class Cancelled(Exception):
    """Another worker failed."""


class _File:
    def __init__(self, path: str, begin: int, size: int, regions: int) -> None:
        self.path, self.begin, self.number = path, begin, -1
        self.size = size  # bytes that are still to be set aside
        self.crcs = [0] * regions
        self.left = regions
        self.turn = 0  # tickets taken and given back
        self.tickets = 0  # tickets handed out
        self.busy = False  # a worker writes
        self.kept: set[int] = set()  # regions that a run before this one has finished

    def keep(self, region: int, crc: int) -> None:
        self.kept.add(region)
        self.crcs[region] = crc
        self.left -= 1


class Targets:
    """The files of a run below `root`. A task has one ticket per file it writes; tickets are served in task order,
    so the lowest unfinished task never waits. At most `most` files are open, or as many as are written to."""

    def __init__(
        self, bound: Bound, root: str, tasks: Sequence[Task], copier: Copier, most: int = 1 << 20, journal: Journal | None = None
    ) -> None:
        self._copier, self._journal = copier, journal
        self.bound, self.root, self._most = bound, root, most
        self._opened: dict[int, _File] = {}  # by file descriptor, the least recently opened first
        self.stopped = False
        self._ready = threading.Condition()
        self._files = [_File(place(root, f.name), f.at, f.layout.size, len(f.targets)) for f in bound.files]
        for (number, region), crc in journal.done.items() if journal is not None else ():
            self._files[number].keep(region, crc)
        self._waiting = iter(tasks)
        self._tickets: dict[int, dict[int, int]] = {}  # of tasks that have them and have not been written
        self._handed = 0
        copier.settle(bound, root)

    def _take(self, number: int) -> dict[int, int]:
        """The tickets of a task, by file. They are handed out in the order of the tasks, whoever is the first to ask."""
        with self._ready:
            while self._handed <= number:
                held = self._tickets[self._handed] = {}
                for file in self._files_of(next(self._waiting)):
                    held[file] = self._files[file].tickets
                    self._files[file].tickets += 1
                self._handed += 1
            return self._tickets.pop(number)

    def _files_of(self, task: Task) -> dict[int, None]:
        """The numbers of the files that a task writes."""
        tensors = self.bound.tensors
        return dict.fromkeys(tensors[target].file for job, _, _ in task.items for members in job.members for target in members)

    def write(self, number: int, task: Task, window: memoryview, lift: bool) -> int:
        """Writes what a task computed into `window`, and with `lift` what it left in the sources; the bytes written."""
        pieces: dict[int, list[_Piece]] = {}
        tensors, files = self.bound.tensors, self.bound.files
        for job, chunk_number, base in task.items:
            chunk = job.recipe.piece(chunk_number)
            ends = chunk_number == 0, chunk_number == job.recipe.chunks - 1
            single = lift and job.single
            for members, (at, size, start), long in zip(job.members, chunk.parts, chunk.long, strict=True):
                lifted = _lifted(job, long, at) if single else ()
                data = window[base + at : base + at + size]
                known: int | None = None
                for target in members:
                    tensor = tensors[target]
                    if known is None and (self._journal is not None or files[tensor.file].layout.needs_crc):
                        known = crc32(data)
                    piece = _Piece(tensor.region, start, data, known or 0, *ends, lifted)
                    pieces.setdefault(tensor.file, []).append(piece)
        done = 0
        for file_number, turn in self._take(number).items():
            done += self._write_file(file_number, turn, pieces[file_number])
        return done

    def _write_file(self, number: int, turn: int, pieces: list[_Piece]) -> int:
        file = self._files[number]
        with self._ready:
            while file.turn != turn and not self.stopped:
                self._ready.wait()
        if self.stopped:
            raise Cancelled
        try:
            wanted = [piece for piece in pieces if piece.region not in file.kept]
            done = self._write_pieces(number, file, self.bound.files[number].layout, wanted) if wanted else 0
        except OSError as error:
            raise self._fault(file, error) from error
        with self._ready:
            file.turn += 1
            file.busy = False
            self._ready.notify_all()
        return done

    def _write_pieces(self, number: int, file: _File, layout: FileLayout, pieces: list[_Piece]) -> int:
        """Writes neighbours, with what stands around them, in one call."""
        self._open(file)
        out = _Out(file.number)
        for piece in pieces:
            region = layout.regions[piece.region]
            lead = region.lead if piece.first else b""
            at = file.begin + region.at + piece.start
            if piece.first:
                file.crcs[piece.region] = piece.crc
            elif self._journal is not None or layout.needs_crc:
                file.crcs[piece.region] = combine(file.crcs[piece.region], piece.crc, len(piece.data))
            out.put(lead, at - len(lead))
            start = 0
            for run in piece.lifted:
                out.put(piece.data[start : run.start], at + start)
                self._lift(out, run, piece.data, at)
                start = run.start + run.size
            out.put(piece.data[start:], at + start)
            if piece.last:
                out.put(layout.trail(piece.region, file.crcs[piece.region]), at + len(piece.data))
            file.left -= piece.last
        if file.left == 0:
            out.put(layout.tail(file.crcs), out.end)
        out.flush()
        if self._journal is not None:
            for piece in pieces:
                if piece.last:
                    self._journal.finish(number, piece.region, file.crcs[piece.region])
        if file.left == 0:
            with self._ready:
                self._close(file)
        return out.done

    def _lift(self, out: _Out, run: _Run, data: memoryview, at: int) -> None:
        """Copies a run from its source to where it stands in the piece that begins at `at`."""
        out.flush()
        if self.stopped:
            raise Cancelled
        done = 0
        if isinstance(run.path, str):
            done = self._copier.copy(run.path, run.at, out.number, at + run.start, run.size)
        out.done += done
        out.end = at + run.start + done
        if done < run.size:
            rest = data[run.start + done : run.start + run.size]
            self._copier.sources.read(run.path, rest, run.at + done)
            out.put(rest, out.end)

    def _open(self, file: _File) -> None:
        """Opens a file for the worker whose turn it is; another is closed where too many are open."""
        with self._ready:
            file.busy = True
            if file.number >= 0:
                return
            idle = next((f for f in self._opened.values() if not f.busy), None)
            if idle is not None and len(self._opened) >= self._most:
                self._close(idle)
            os.makedirs(os.path.dirname(file.path), exist_ok=True)
            file.number = os.open(file.path, os.O_WRONLY | os.O_CREAT, 0o666)
            self._opened[file.number] = file
            if file.size:
                reserve(file.number, file.begin, file.size)
                file.size = 0

    def _close(self, file: _File) -> None:
        del self._opened[file.number]
        number, file.number = file.number, -1
        os.close(number)

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
        for file in list(self._opened.values()):
            self._close(file)


class _Out:
    """Bytes on their way to a file; neighbours are written in one call."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.done = 0  # bytes written
        self.end = 0
        self._begin = 0
        self._vectors: list[memoryview | bytes] = []

    def put(self, data: memoryview | bytes, at: int) -> None:
        if at != self.end or len(self._vectors) >= _MOST_VECTORS:
            self.flush()
        if not self._vectors:
            self._begin = at
        if len(data):
            self._vectors.append(data)
        self.end = at + len(data)

    def flush(self) -> None:
        vectors, self._vectors = self._vectors, []
        if not vectors:
            return
        total = sum(len(vector) for vector in vectors)
        done = os.pwritev(self.number, vectors, self._begin)
        while done < total:
            whole = b"".join(vectors) if len(vectors) > 1 else vectors[0]
            done += os.pwrite(self.number, memoryview(whole)[done:], self._begin + done)
        self.done += total


def _lifted(job: Job, runs: tuple[tuple[int, int, int, int], ...], part_at: int) -> tuple[_Run, ...]:
    """Where the long runs of a class are: in its part, and in the sources."""
    places = ((*job.slots[slot], offset, size, at - part_at) for slot, offset, size, at in runs)
    return tuple(_Run(at, size, path, start + offset) for path, start, offset, size, at in places)
