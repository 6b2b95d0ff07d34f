"""Where output goes, folder or file: a temporary sibling that becomes the destination when it is whole, or vanishes."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from ..fault import Fault
from ..journal.partial import stem
from ..journal.records import sync
from ..path_names import refuse_remote_target


def _within(inner: str, outer: str) -> bool:
    inner, outer = os.path.realpath(inner), os.path.realpath(outer)
    return inner == outer or inner.startswith(outer.rstrip(os.sep) + os.sep)


def free_bytes(path: str) -> int:
    """The free bytes of the disk that `path`, or its nearest existing parent, is on."""
    path = os.path.abspath(path)
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return shutil.disk_usage(path).free


def check(out: str, need: int, sources: tuple[str, ...], *, overwrite: bool, merge: bool, names: Iterable[str] = ()) -> None:
    """Refuses a destination that is a URL, taken, too small, or holds what is read.

    Files of these names, merged into a folder, may stand beside a file that is read.
    """
    written = {os.path.realpath(os.path.join(out, name)) for name in names}
    for source in sources:
        beside = merge and os.path.isfile(source) and os.path.realpath(source) not in written
        if _within(source, out) and not beside:
            raise Fault(
                "source-in-destination", f"{out} holds the checkpoint that is read, {source}", help="write elsewhere"
            )
        if os.path.isdir(source) and _within(out, source):
            raise Fault(
                "destination-in-source", f"{out} lies in the checkpoint that is read, {source}", help="write elsewhere"
            )
    if taken(out) and not overwrite and not merge:
        how = "is a link, and links are not followed" if os.path.islink(out) else "exists and is not empty"
        raise Fault("destination-exists", f"{out} {how}", help="use --overwrite, or another place")
    free = free_bytes(out)
    if need > free:
        raise Fault(
            "disk-full",
            f"{out} needs {need:,} bytes, its disk has {free:,} free",
            help="free some space, or write to another disk",
        )


def taken(out: str) -> bool:
    """Whether something stands at `out` that is no empty folder."""
    try:
        return os.path.lexists(out) and (os.path.islink(out) or not os.path.isdir(out) or bool(os.listdir(out)))
    except OSError as error:
        raise Fault("write-failed", f"{out}: {error.strerror}") from error


def _mark(name: str) -> str:
    """How the temporary folders of this machine for a destination begin; the process's number follows."""
    return f"{stem(name)}.partial-{os.uname().nodename}-"


def sweep(out: str) -> None:
    """Removes what killed runs to `out` have left; an old destination that one had set aside comes back."""
    try:
        _sweep(out)
    except OSError as error:
        raise Fault("write-failed", f"{error.filename or out}, which a killed run has left: {error.strerror}") from error


def _sweep(out: str) -> None:
    parent, name = os.path.split(os.path.abspath(out))
    mark = _mark(name)
    for left in sorted(os.listdir(parent)) if os.path.isdir(parent) else ():
        number = left.removeprefix(mark).split("-")[0]
        path = os.path.join(parent, left)
        if not left.startswith(mark) or not number.isdecimal() or _alive(int(number), path):
            continue
        with suppress(FileNotFoundError):  # another run sweeps here as well
            if left.endswith(".old") and not os.path.lexists(out):
                os.rename(path, out)
            elif os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                os.unlink(path)


def _alive(process: int, folder: str) -> bool:
    """Whether a process of this number runs, or one that is not seen from here holds the folder."""
    try:
        os.kill(process, 0)
        return True
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        held = _hold(folder)
        if held is None:
            return os.path.isdir(folder)
        os.close(held)
        return False


def _hold(folder: str) -> int | None:
    """An open folder that is locked, or None where another process has locked it."""
    number = None
    try:
        number = os.open(folder, os.O_RDONLY)
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        if number is not None:
            os.close(number)
        return None
    except OSError:  # this file system has no locks
        return number
    return number


@contextmanager
def destination(
    out: str, one: str = "", *, overwrite: bool = False, merge: bool = False, durable: bool = False
) -> Iterator[str]:
    """A temporary folder beside `out`: moved to `out` when the block ends well, removed when it does not.

    With `one`, `out` is a file: only the one of this name is moved.
    """
    out = os.path.abspath(out)
    with temporary(out) as root:
        yield root
        if durable:
            sync_all(root)
        publish(root, out, one, f"{root}.old", overwrite=overwrite, merge=merge, durable=durable)


@contextmanager
def temporary(out: str) -> Iterator[str]:
    """A folder of this process beside `out`, which is removed at the end. If the process is killed, `sweep` removes it."""
    parent, name = os.path.split(os.path.abspath(out))
    try:
        os.makedirs(parent, exist_ok=True)
        made = tempfile.mkdtemp(prefix=f"{_mark(name)}{os.getpid()}-", dir=parent)
        os.chmod(made, 0o777 & ~_mask())
    except OSError as error:
        raise Fault("write-failed", f"{parent}: {error.strerror}") from error
    held = _hold(made)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        if held is not None:
            os.close(held)


def publish(root: str, out: str, one: str, spare: str, *, overwrite: bool, merge: bool, durable: bool) -> None:
    """Moves what is whole in the folder `root` to `out`; what it replaces stands at `spare` meanwhile."""
    if merge:
        folders = _merge(root, out)
    else:
        folders = [os.path.dirname(out)]
        _replace(os.path.join(root, one) if one else root, spare, out, overwrite)
    for folder in folders if durable else ():
        _sync_one(folder)


def check_file(out: str, *, overwrite: bool) -> None:
    """Refuses a file to write that is there, and a folder or a URL in any case."""
    refuse_remote_target(out)
    if os.path.isdir(out):
        raise Fault("destination-exists", f"{out} is a folder", help="name a file")
    if os.path.lexists(out) and not overwrite:
        raise Fault("destination-exists", f"{out} exists", help="use --overwrite, or another place")


def write_file(out: str, data: bytes) -> None:
    """Writes a temporary sibling, which replaces `out` when it is whole."""
    refuse_remote_target(out)
    parent, name = os.path.split(os.path.abspath(out))
    made = ""
    try:
        os.makedirs(parent, exist_ok=True)
        number, made = tempfile.mkstemp(prefix=f"{_mark(name)}{os.getpid()}-", dir=parent)
        with open(number, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(number)
        os.chmod(made, 0o666 & ~_mask())
        os.replace(made, out)
        made = ""
    except OSError as error:
        raise Fault("write-failed", f"{out}: {error.strerror}") from error
    finally:
        if made:
            os.unlink(made)


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _replace(temporary: str, spare: str, out: str, overwrite: bool) -> None:
    aside = None
    try:
        if os.path.isdir(out) and not os.path.islink(out) and not os.listdir(out):
            os.rmdir(out)
        elif os.path.lexists(out) and overwrite:
            aside = spare
            os.rename(out, aside)
        os.rename(temporary, out)
    except OSError as error:
        if aside is not None and not os.path.lexists(out):
            os.rename(aside, out)
        raise Fault("write-failed", f"{out}: {error.strerror}") from error
    if aside is not None:
        if os.path.isdir(aside) and not os.path.islink(aside):
            shutil.rmtree(aside, ignore_errors=True)
        else:
            os.unlink(aside)


def _merge(temporary: str, out: str) -> list[str]:
    """Moves all files, those of inner folders first: markers stand on top. The folders that are now different."""
    folders = [os.path.dirname(out)]
    try:
        for folder, _, names in os.walk(temporary, topdown=False):
            into = os.path.join(out, os.path.relpath(folder, temporary))
            os.makedirs(into, exist_ok=True)
            folders.append(into)
            for name in sorted(names):
                os.replace(os.path.join(folder, name), os.path.join(into, name))
    except OSError as error:
        raise Fault("write-failed", f"{out}: {error.strerror}") from error
    return folders


def _sync_one(path: str) -> None:
    try:
        sync(path)
    except OSError as error:
        raise Fault("write-failed", f"{path}: {error.strerror}") from error


def sync_all(root: str) -> None:
    """Brings all files and folders below `root`, and itself, to the disk."""
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            _sync_one(os.path.join(folder, name))
        _sync_one(folder)
