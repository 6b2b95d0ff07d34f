"""Runs a bound plan: tasks on a few threads, reads and kernels and checksums in parallel, writes in order."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from ..binding.archive import bound_for
from ..binding.bind import Bound, Target
from ..fault import Fault
from ..files.file_limit import room
from ..files.window import paths_of
from ..inside import confine
from ..kernels.kernels import Array, Kernel, prepare
from ..path_names import refuse_remote_target
from ..progress import EVERY_SECONDS, OnProgress, Progress
from ..stopping import stoppable
from . import destination
from .compare import compare_copies
from .copy_range import Copier
from .fill import Filler, Sources, buffer
from .made_means import work_out
from .schedule import Budget, Recipes, Schedule, budget, reworked_bytes, schedule, scratch, tiled
from .target_files import Cancelled, Targets
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
    progress: OnProgress | None = None,
    kernels: Mapping[int, Kernel] | None = None,
    check_copies: bool = True,
) -> Report:
    """Writes the target checkpoint to the folder, or the archive, `out_dir`: whole, or not at all."""
    began = time.perf_counter()
    refuse_remote_target(out_dir)
    out = os.path.abspath(os.fspath(out_dir))
    confine(bound.names, out if merge and os.path.isdir(out) else None)
    bound = bound_for(bound, out)
    archive = bound.files[0].name if bound.around else ""
    if archive and merge:
        raise Fault("not-merged", f"{out} is one file, which nothing is written beside", help="leave --merge out")
    sources = (bound.path, *dict.fromkeys(path for w in bound.windows if w is not None for path in paths_of(w)))
    destination.sweep(out)
    destination.check(out, bound.disk_need, sources, overwrite=overwrite, merge=merge, names=bound.names)
    plan = schedule(bound, memory, workers)
    asked, workers = workers, max(1, min(workers, len(plan.tasks)))
    with stoppable(), destination.destination(out, archive, overwrite=overwrite, merge=merge, durable=durable) as root:
        compared = compare_copies(bound, memory, asked, progress) if check_copies else 0
        averaged = work_out(bound, memory)
        for each in bound.puts:
            put(root, each)
        read, calls = _work(bound, plan, root, workers, progress, kernels, began)
    return Report(
        time.perf_counter() - began, read + compared + averaged, bound.bytes_written, plan.buffer_bytes * workers, bound.names, calls, compared
    )  # fmt: skip


def _work(
    bound: Bound,
    plan: Schedule,
    root: str,
    workers: int,
    progress: OnProgress | None,
    kernels: Mapping[int, Kernel] | None,
    began: float,
) -> tuple[int, int]:
    most = room(max(len(bound.files), len({path for w in bound.windows if w is not None for path in paths_of(w)})))
    prepare(reworked_bytes(bound))
    sources = Sources(most)
    copier = Copier(sources, not any(file.layout.needs_crc for file in bound.files))
    targets = Targets(bound, root, plan.tasks, copier, most)
    numbers = iter(range(len(plan.tasks)))
    lock = threading.Lock()
    failures: list[BaseException] = []
    fillers: list[Filler] = []
    done = 0

    def work() -> None:
        nonlocal done
        try:
            filler = Filler(sources, plan.arena_bytes, bound.plan.steps, kernels)
            fillers.append(filler)
            into = buffer(plan.chunk_bytes)
            window = into.data
            while not targets.stopped:
                with lock:
                    number = next(numbers, -1)
                if number < 0:
                    return
                task, lift = plan.tasks[number], copier.on
                for job, chunk, base in task.items:
                    filler.fill(job, job.recipe.piece(chunk), into, window, base, lift and job.single)
                written = targets.write(number, task, window, lift)
                with lock:
                    done += written
        except Cancelled:
            pass
        except BaseException as failure:
            failures.append(failure)
            targets.stop()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(EVERY_SECONDS if progress else 1.0)
                if progress:
                    spent = time.perf_counter() - began
                    progress(Progress("write", done, bound.bytes_written, plan.buffer_bytes * workers, spent))
    except BaseException:
        targets.stop()
        for thread in threads:
            thread.join()
        raise
    finally:
        targets.close()
        sources.close()
    if failures:
        raise failures[0]
    return sum(f.bytes_read for f in fillers), sum(f.calls for f in fillers)


def stream(
    bound: Bound,
    ranks: Mapping[str, int] | None = None,
    *,
    memory: int = MEMORY,
    kernels: Mapping[int, Kernel] | None = None,
) -> Iterator[tuple[str, str, tuple[int, ...], Array]]:
    """Yields (name, dtype, shape, bytes) of every target tensor whose coordinates agree with `ranks`, in file order;
    the next one is filled meanwhile. The bytes are the caller's to keep."""
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
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        sources.close()


