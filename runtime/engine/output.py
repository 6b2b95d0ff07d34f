"""Where a run writes: a temporary place that vanishes if it fails, or one that can be resumed. Nothing incomplete goes on to the destination."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ..binding.bind import Bound
from ..fault import Fault
from ..files.stamps import refuse_changed
from ..inside import place
from ..journal.lock import hold
from ..journal.partial import OLD, Journal, can_be_resumed, discard, folder_of, open_journal, put_back, remove
from . import destination


def refuse_partial(out: str, *, overwrite: bool) -> None:
    """Before a run that is not resumed: what an earlier one has left to be resumed is not lost by accident."""
    folder = folder_of(out)
    if not can_go_on(out):
        return
    if not overwrite:
        raise Fault(
            "partial-exists", f"{folder} holds the partial output of a run that was ended",
            help="use --resume to go on with it, or --overwrite to start over",
        )  # fmt: skip
    with hold(folder, out):
        discard(out)


def can_go_on(out: str) -> bool:
    """Whether there is something to resume. What is left of a folder that was being removed goes."""
    folder = folder_of(out)
    if os.path.lexists(folder) and not can_be_resumed(out):
        with hold(folder, out):
            if not can_be_resumed(out):
                discard(out)
    return can_be_resumed(out)


@contextmanager
def resumable(
    bound: Bound, out: str, one: str, *, overwrite: bool, merge: bool, workers: int, also: tuple[str, ...] = ()
) -> Iterator[Journal]:
    """A journal, and the folder `journal.root` to write to: moved to `out` when the block ends well, kept when it does not.

    With `one`, `out` is a file: only the one of this name is moved. A run that finished nothing leaves nothing.
    """
    folder = folder_of(out)
    with hold(folder, out):
        journal: Journal | None = None
        try:
            journal = open_journal(out, bound, workers, also)
            if not journal.known.whole:
                yield journal
                journal.commit()
                destination.sync_all(journal.root)
                journal.say_whole()
            else:
                yield journal
            _publish(bound, journal, out, one, overwrite, merge)
        except BaseException as problem:
            _keep(journal, folder, out, problem)
            raise
        remove(folder)


def _publish(bound: Bound, journal: Journal, out: str, one: str, overwrite: bool, merge: bool) -> None:
    """Moves what is whole, unless a run that was killed just then has done so."""
    there = os.path.join(journal.root, one) if one else journal.root
    if os.path.lexists(there):
        spare = os.path.join(journal.folder, OLD)
        destination.publish(journal.root, out, one, spare, overwrite=overwrite, merge=merge, durable=True)
    elif why := why_not_whole(bound, os.path.dirname(out) if one else out):
        raise Fault("partial-changed", f"{journal.root}, which was whole, is gone, and {why}", help="run it without --resume and with --overwrite")


def _keep(journal: Journal | None, folder: str, out: str, problem: BaseException) -> None:
    """After a failure: what is finished is written down. The problem says that it is kept."""
    if journal is None:
        if not os.path.exists(os.path.join(folder, "journal")):
            put_back(out, folder)
            remove(folder)
        return
    with suppress(Fault):  # the disk may be full, or broken: what was written down before stands
        journal.commit()
    if not journal.done and not journal.known.whole:
        put_back(out, folder)
        remove(folder)
    elif isinstance(problem, Fault):
        problem.notes = (*problem.notes, f"what is finished is kept in {folder}: run the same with --resume to go on")
    elif isinstance(problem, KeyboardInterrupt):
        problem.args = ("interrupted; what is finished is kept: run the same with --resume to go on",)


def refuse_unfinished(bound: Bound, root: str) -> None:
    """Before anything gets its final name: every file is there and has its size, and no source has changed."""
    refuse_changed(bound.stamps)
    if why := why_not_whole(bound, root):
        raise Fault("write-failed", f"{why}, though it was written: something else works in {root}", help="run it again")


def why_not_whole(bound: Bound, root: str) -> str:
    """The first file of `bound` that is not in `root`, or has another size; "" where all are as they will be."""
    for name, size in bound.sizes.items():
        path = place(root, name)
        if not os.path.isfile(path):
            return f"{path} is not there"
        if os.stat(path).st_size != size:
            return f"{path} has {os.stat(path).st_size:,} bytes, not {size:,}"
    return ""


def differs(one: str, other: str) -> bool:
    """Whether two files hold different bytes."""
    with open(one, "rb") as left, open(other, "rb") as right:
        while True:
            a, b = left.read(1 << 20), right.read(1 << 20)
            if a != b:
                return True
            if not a:
                return False
