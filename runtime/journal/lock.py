"""A folder in; the right to be the only process that writes to it out, or a fault that names the one that has it.

The lock is `flock` on a file, which the system drops when its process ends, however it ends. Where a file system has no such locks, or
the holder is on another machine, the holder is known to live by what it does: it touches the file every second.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..fault import Fault

NAME = "lock"
BEAT_SECONDS, PATIENCE_SECONDS = 1.0, 5.0
_TRIES = 20


@contextmanager
def hold(folder: str, out: str) -> Iterator[None]:
    """Holds the lock of `folder`, which is made if it is not there. Raises `Fault` where a living process holds it."""
    number = _take(folder, out)
    quiet = threading.Event()
    beat = threading.Thread(target=_beat, args=(number, quiet), daemon=True)
    try:
        try:
            os.ftruncate(number, 0)
            os.pwrite(number, json.dumps(_myself()).encode(), 0)
        except OSError as error:
            raise Fault("write-failed", f"{folder}: {error.strerror}") from error
        beat.start()
        yield
    finally:
        quiet.set()
        if beat.ident is not None:
            beat.join()
        os.close(number)


def _beat(number: int, quiet: threading.Event) -> None:
    while not quiet.wait(BEAT_SECONDS):
        try:
            os.utime(number)
        except OSError:
            return


def _take(folder: str, out: str) -> int:
    for _ in range(_TRIES):
        number = -1
        try:
            os.makedirs(folder, exist_ok=True)
            if os.path.islink(folder):
                raise Fault("write-failed", f"{folder} is a link, and partial output is not written through one", help="remove it")
            number = os.open(os.path.join(folder, NAME), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            free = _flock(number)
            if free is False or not _dead(_said(number), number, free is None):
                raise _busy(out, _said(number))
            if os.fstat(number).st_ino == os.stat(os.path.join(folder, NAME)).st_ino:
                return number
        except FileNotFoundError:
            pass  # whoever held it has just removed the folder
        except OSError as error:
            if number >= 0:
                os.close(number)
            raise Fault("write-failed", f"{folder}: {error.strerror}") from error
        except BaseException:
            if number >= 0:
                os.close(number)
            raise
        if number >= 0:
            os.close(number)
    raise Fault("write-failed", f"{folder}: it is made and removed again and again by others")


def _flock(number: int) -> bool | None:
    """Whether the lock is ours now; None where the file system has none."""
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.EINVAL, errno.ENOLCK):
            return None
        raise
    return True


def _myself() -> dict[str, Any]:
    return {"pid": os.getpid(), "host": os.uname().nodename, "started": _started(os.getpid())}


def _started(process: int) -> str:
    """When a process of this machine began, in ticks since the machine did; numbers of processes are used again. "" of none."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _said(number: int) -> dict[str, Any]:
    try:
        said = json.loads(os.pread(number, 4096, 0) or b"{}")
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _dead(holder: dict[str, Any], number: int, unlocked: bool) -> bool:
    """Whether the one that the file names lives no more. `unlocked`: the file system could not say so."""
    if not holder:
        return True
    if holder.get("host") != os.uname().nodename:
        return not _beats(number)
    return not unlocked or not isinstance(holder.get("pid"), int) or not _runs(holder["pid"], str(holder.get("started")))


def _runs(process: int, started: str) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        pass
    except (ProcessLookupError, OverflowError):
        return False
    return _started(process) in ("", started)


def _beats(number: int) -> bool:
    """Whether someone touches the file. Only that its time changes counts, so clocks need not agree."""
    before, until = os.fstat(number).st_mtime_ns, time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        time.sleep(0.2)
        if os.fstat(number).st_mtime_ns != before:
            return True
    return False


def _busy(out: str, holder: dict[str, Any]) -> Fault:
    who = f"process {holder.get('pid', '?')} on {holder.get('host', '?')}" if holder else "another process"
    return Fault("destination-busy", f"{out} is being written by {who}", help="wait for it, or end it, or write elsewhere")
