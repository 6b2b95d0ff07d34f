"""A run that can be resumed in; its folder of partial output beside the destination, and its journal, out.

    .NAME.resume/lock      who writes
    .NAME.resume/journal   what is finished
    .NAME.resume/data/     what becomes the destination
    .NAME.resume/old       the destination that is being replaced, for a moment
"""

from __future__ import annotations

import os
import shutil
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

from ..binding.bind import Bound
from ..fault import Fault
from ..inside import place
from . import records
from .fingerprint import plan_fingerprint, sources_of
from .kept import refuse_other
from .records import Done, Head, Known, sync

DATA, OLD = "data", "old"
_EVERY_SECONDS, _PART = 0.2, 4  # records are written as often, but take at most a fourth of the time


@dataclass
class Journal:
    """What is finished of a run, in memory and in its file. Workers say so (`finish`); `commit` makes it last."""

    folder: str
    bound: Bound
    known: Known
    _waiting: list[tuple[int, int, int]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _synced: set[str] = field(default_factory=set)
    _next: float = 0.0

    @property
    def done(self) -> Done:
        return self.known.done

    @property
    def root(self) -> str:
        return os.path.join(self.folder, DATA)

    @property
    def kept_bytes(self) -> int:
        """Bytes of tensors that need not be written again."""
        return sum(self.bound.files[file].layout.regions[region].nbytes for file, region in self.done)

    def finish(self, file: int, region: int, crc: int) -> None:
        """A region is written, with what stands around it."""
        with self._lock:
            self._waiting.append((file, region, crc))

    def commit(self, now: bool = True) -> None:
        """Brings what is finished to the disk, and then says so. Without `now`, only every now and then."""
        began = time.monotonic()
        if not now and began < self._next:
            return
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if waiting:
            self._sync({self.bound.files[file].name for file, _, _ in waiting})
            self._append({"done": waiting})
            self.done.update(((file, region), crc) for file, region, crc in waiting)
        spent = time.monotonic() - began
        self._next = began + spent + max(_EVERY_SECONDS, _PART * spent)

    def say_compared(self) -> None:
        self._append({"compared": True})
        self.known.compared = True

    def say_whole(self) -> None:
        """All is written and on the disk."""
        self._append({"whole": True})
        self.known.whole = True

    def _sync(self, names: set[str]) -> None:
        folders: set[str] = set()
        try:
            for name in sorted(names):
                path = place(self.root, name)
                sync(path)
                while path not in self._synced and path != self.folder:
                    self._synced.add(path)
                    path = os.path.dirname(path)
                    folders.add(path)
            for folder in sorted(folders, reverse=True):
                sync(folder)
        except OSError as error:
            raise Fault("write-failed", f"{self.root}: {error.strerror}") from error

    def _append(self, record: object) -> None:
        path = os.path.join(self.folder, records.NAME)
        text = records.line(record)
        try:
            number = os.open(path, os.O_WRONLY)
            try:
                done = 0
                while done < len(text):
                    done += os.pwrite(number, text[done:], self.known.size + done)
                os.fsync(number)
            finally:
                os.close(number)
        except OSError as error:
            raise Fault("write-failed", f"{path}: {error.strerror}") from error
        self.known.size += len(text)


def folder_of(out: str) -> str:
    """Where partial output for `out` stands."""
    parent, name = os.path.split(os.path.abspath(out))
    return os.path.join(parent, f"{stem(name)}.resume")


def stem(name: str) -> str:
    """The beginning of a temporary name beside the file `name`, which may be as long as file systems let it be (255 bytes)."""
    raw = os.fsencode(name)
    if len(raw) <= 120:
        return f".{name}"
    import hashlib

    return f".{hashlib.sha256(raw).hexdigest()[:32]}"


def open_journal(out: str, bound: Bound, workers: int, also: tuple[str, ...] = ()) -> Journal:
    """The journal of a run to `out`, whose lock is held: a new one, or that of an ended run, once its output is found as it says.

    `also` are names of files that every run makes anew, when all others are whole.
    Raises `Fault` where the plan, the sources or the partial output are no longer the same.
    """
    folder = folder_of(out)
    head = Head(plan_fingerprint(bound), sources_of(bound))
    known = records.read(folder, [len(file.layout.regions) for file in bound.files])
    try:
        if known is None:
            put_back(out, folder)
            shutil.rmtree(os.path.join(folder, DATA), ignore_errors=True)
            records.begin(folder, head)
            known = records.read(folder, [len(file.layout.regions) for file in bound.files])
            assert known is not None
        else:
            _compare(known.head, head, folder)
            os.truncate(os.path.join(folder, records.NAME), known.size)
        if not known.whole:
            os.makedirs(os.path.join(folder, DATA), exist_ok=True)
            for name in also:
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(folder, DATA, name))
    except OSError as error:
        raise Fault("write-failed", f"{folder}: {error.strerror}") from error
    journal = Journal(folder, bound, known)
    refuse_other(bound, journal.root, known, out, workers, also)
    return journal


def _compare(was: Head, now: Head, folder: str) -> None:
    start_over = f"start over: run it without --resume and with --overwrite, or remove {folder}"
    before = {each.path: each for each in was.sources}
    for each in now.sources:
        old = before.pop(each.path, None)
        if old is None and was.plan == now.plan:
            raise Fault("source-changed", f"{each.path} is read, which the run that is to be resumed did not read", help=start_over)
        if old is not None and old != each:
            how = f"it had {old.size:,} bytes and has {each.size:,}" if old.size != each.size else "it was written to since"
            raise Fault("source-changed", f"{each.path} changed after the run that is to be resumed began: {how}", help=start_over)
    if was.plan != now.plan:
        raise Fault(
            "plan-changed", f"{folder} is the partial output of another conversion, of another plan, dtype or version of ckptc",
            help=f"give the same options as before, or {start_over}",
        )  # fmt: skip
    for path in before:
        raise Fault("source-changed", f"{path} is not read any more, as it was by the run that is to be resumed", help=start_over)


def discard(out: str) -> None:
    """Removes partial output for `out`; a destination that was set aside comes back."""
    folder = folder_of(out)
    put_back(out, folder)
    remove(folder)


def remove(folder: str) -> None:
    """Removes a folder of partial output, its journal last: a run that is killed meanwhile leaves what the next one understands."""
    for name in (DATA, OLD, records.NAME):
        path = os.path.join(folder, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path, ignore_errors=True)
        else:
            with suppress(OSError):
                os.unlink(path)
    shutil.rmtree(folder, ignore_errors=True)


def can_be_resumed(out: str) -> bool:
    """Whether a run to `out` has left a journal."""
    return os.path.lexists(os.path.join(folder_of(out), records.NAME))


def put_back(out: str, folder: str) -> None:
    """A destination that was set aside, and that nothing has replaced, comes back."""
    old = os.path.join(folder, OLD)
    if os.path.lexists(old) and not os.path.lexists(out):
        try:
            os.rename(old, out)
        except OSError as error:
            raise Fault("write-failed", f"{out}, which stands at {old}: {error.strerror}") from error


def used_bytes(out: str) -> int:
    """Bytes of the disk that partial output for `out` has already."""
    root = os.path.join(folder_of(out), DATA)
    found = 0
    for folder, _, names in os.walk(root):
        for name in names:
            try:
                found += os.lstat(os.path.join(folder, name)).st_blocks * 512
            except OSError:
                continue
    return found
