"""Runs a bound plan, to files or as a stream of tensors."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from ..binding.archive import bound_for
from ..binding.bind import Bound, Target
from ..fault import Fault
from ..files.stamps import refuse_changed
from ..files.window import paths_of
from ..inside import confine, place
from ..journal.partial import Journal, used_bytes
from ..kernels.kernels import Array, Kernel
from ..manifest.manifest import MANIFEST, UNFINISHED, Manifest, beside, read_manifest
from ..manifest.write import forget, write_manifest
from ..path_names import refuse_remote_target
from ..progress import OnProgress
from ..stopping import stoppable
from . import destination
from .compare import compare_copies
from .fill import Filler, Sources, buffer
from .made_means import work_out
from .output import can_go_on, differs, refuse_partial, refuse_unfinished, resumable, why_not_whole
from .schedule import Budget, Recipes, Schedule, budget, schedule, scratch, tiled
from .workers import work_through
from .write_bytes import put

MEMORY = 512 << 20


@dataclass(frozen=True)
class Report:
    """What a run did. `bytes_read` counts what was really read, twice where it had to be."""

    seconds: float
    bytes_read: int
    bytes_written: int
    peak_buffer_bytes: int
    files: tuple[str, ...]
    kernel_calls: int = 0
    bytes_compared: int = 0  # of `bytes_read`, to compare declared copies


def run(
    bound: Bound,
    out_dir: str | os.PathLike[str],
    *,
    memory: int = MEMORY,
    workers: int = 2,
    overwrite: bool = False,
    merge: bool = False,
    durable: bool = False,
    resume: bool = False,
    manifest: bool = False,
    progress: OnProgress | None = None,
    kernels: Mapping[int, Kernel] | None = None,
    check_copies: bool = True,
    judge: Callable[[str], None] | None = None,
) -> Report:
    """Writes the target checkpoint to the folder, or the archive, `out_dir`: whole, or not at all.

    `judge` is called with the path of what was written while that still has its temporary name: what it raises ends the
    run, and leaves nothing behind.
    `durable`: it is on the disk when this returns. `resume`: so it is, a run that fails keeps what it has finished, and what
    such a run to `out_dir` has left is gone on with; if the whole result stands there already, nothing is written.
    `manifest`: checksums of all that was read and written stand beside it. A merge adds them to those that are there.
    Without it, a manifest of what was replaced is removed.
    """
    began = time.perf_counter()
    refuse_remote_target(out_dir)
    out = os.path.abspath(os.fspath(out_dir))
    confine(bound.names, out if merge and os.path.isdir(out) else None)
    bound = bound_for(bound, out)
    archive = bound.files[0].name if bound.around else ""
    if archive and merge:
        raise Fault("not-merged", f"{out} is one file, which nothing is written beside", help="leave --merge out")
    record = beside(out) if archive else os.path.join(out, MANIFEST)
    if manifest:
        destination.check_file(record, overwrite=True)
    earlier = read_manifest(out)[0] if manifest and merge and os.path.lexists(record) else None
    how = _How(memory, workers, progress, kernels, check_copies, manifest and not archive, judge, earlier)
    destination.sweep(out)
    if not resume:
        refuse_partial(out, overwrite=overwrite)
    goes_on = resume and can_go_on(out)
    if resume and not goes_on and not overwrite and not merge and destination.taken(out):
        return _again(bound, out, archive, how, record if manifest else "", began)
    sources = (bound.path, *dict.fromkeys(path for w in bound.windows if w is not None for path in paths_of(w)))
    need = max(0, bound.disk_need - used_bytes(out)) if resume else bound.disk_need
    destination.check(out, need, sources, overwrite=overwrite or goes_on, merge=merge, names=bound.names)
    plan = schedule(bound, memory, workers)
    with stoppable():
        if resume:
            with resumable(bound, out, archive, overwrite=overwrite, merge=merge, workers=workers, also=(MANIFEST, UNFINISHED)) as journal:
                was_whole = journal.known.whole
                done = _Done() if was_whole else _fill(bound, plan, journal.root, how, began, journal)
        else:
            was_whole = False
            with destination.destination(out, archive, overwrite=overwrite, merge=merge, durable=durable) as root:
                done = _fill(bound, plan, root, how, began)
        if manifest and (archive or was_whole):
            write_manifest(bound, os.path.dirname(out) if archive else out, record, workers, earlier)
        elif not manifest:
            forget(record)  # one that an earlier run wrote does not hold any more
    return Report(
        time.perf_counter() - began, done.read + done.compared, bound.bytes_written, plan.buffer_bytes * max(1, min(workers, len(plan.tasks))),
        (*bound.names, *((f"{archive}.{MANIFEST}" if archive else MANIFEST,) if manifest else ())), done.calls, done.compared,
    )  # fmt: skip


@dataclass(frozen=True)
class _How:
    memory: int
    workers: int
    progress: OnProgress | None
    kernels: Mapping[int, Kernel] | None
    check_copies: bool
    manifest: bool
    judge: Callable[[str], None] | None = None
    earlier: Manifest | None = None  # of what a merge leaves where it is


@dataclass(frozen=True)
class _Done:
    """Bytes read, bytes read to compare copies, and kernel calls."""

    read: int = 0
    compared: int = 0
    calls: int = 0


def _fill(bound: Bound, plan: Schedule, root: str, how: _How, began: float, journal: Journal | None = None) -> _Done:
    """Writes all files below `root`, and sees that they are whole."""
    refuse_changed(bound.stamps)
    compares = how.check_copies and not (journal is not None and journal.known.compared)
    compared = compare_copies(bound, how.memory, how.workers, how.progress) if compares else 0
    if journal is not None and compares:
        refuse_changed(bound.stamps)
        journal.say_compared()
    averaged = work_out(bound, how.memory)
    for each in bound.puts:
        put(root, each)
    workers = max(1, min(how.workers, len(plan.tasks)))
    read, calls = work_through(bound, plan, root, workers, how.progress, how.kernels, began, journal)
    refuse_unfinished(bound, root)
    if how.judge is not None:
        how.judge(os.path.join(root, bound.files[0].name) if bound.around else root)
    if how.manifest:
        write_manifest(bound, root, os.path.join(root, MANIFEST), workers, how.earlier)
        refuse_changed(bound.stamps)
    return _Done(read + averaged, compared, calls)


def _again(bound: Bound, out: str, archive: str, how: _How, record: str, began: float) -> Report:
    """To be resumed, and done already, it seems: the result is made once more beside `out`, compared, and removed. With
    `record`, its manifest is written there.

    Raises `destination-exists` where `out` is anything else.
    """
    exists = Fault("destination-exists", f"{out} exists and is not what this conversion writes", help="use --overwrite, or another place")
    parent, name = os.path.split(out)
    if os.path.islink(out) or why_not_whole(bound, parent if archive else out):
        raise exists
    with destination.temporary(out) as root:
        made = os.path.join(root, name)
        report = run(bound, made, memory=how.memory, workers=how.workers, progress=how.progress, kernels=how.kernels, check_copies=how.check_copies, judge=how.judge)
        ends = (parent, root) if archive else (out, made)
        if any(differs(place(ends[0], each), place(ends[1], each)) for each in bound.names):
            raise exists
    if record:
        write_manifest(bound, parent if archive else out, record, how.workers)
    return replace(report, seconds=time.perf_counter() - began)


def stream(
    bound: Bound,
    ranks: Mapping[str, int] | None = None,
    *,
    memory: int = MEMORY,
    kernels: Mapping[int, Kernel] | None = None,
) -> Iterator[tuple[str, str, tuple[int, ...], Array]]:
    """Yields (name, dtype, shape, bytes) of every target tensor whose coordinates agree with `ranks`, in file order;
    the next one is filled meanwhile. The bytes are the caller's to keep."""
    refuse_changed(bound.stamps)
    work_out(bound, memory)
    wanted = dict(ranks or {})
    limits = budget(memory, 1, scratch(bound), tiled(bound))
    whole = Budget(1 << 62, 1 << 62, limits.arena, limits.scratch, limits.gather)
    recipes = Recipes(bound, whole)
    sources = Sources()
    filler = Filler(sources, limits.arena, bound.plan.steps, kernels)

    def make(number: int) -> Array:
        job = recipes.job([number])
        chunk = job.recipe.piece(0)
        into = buffer(max(1, sum(part[1] for part in chunk.parts)))[: chunk.parts[0][1]]
        filler.fill(job, chunk, into, into.data, 0)
        return into

    def chosen(tensor: Target) -> bool:
        coords = bound.coords(tensor)
        return all(coords[name] == value for name, value in wanted.items() if name in coords)

    order = [number for number in bound.order if chosen(bound.tensors[number])]
    pool = ThreadPoolExecutor(1)
    try:
        following = pool.submit(make, order[0]) if order else None
        for place, number in enumerate(order):
            assert following is not None
            ready = following.result()
            following = pool.submit(make, order[place + 1]) if place + 1 < len(order) else None
            tensor = bound.tensors[number]
            yield tensor.name, tensor.dtype, bound.targets[tensor.family].stored.shape, ready
        refuse_changed(bound.stamps)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        sources.close()


