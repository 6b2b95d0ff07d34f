"""Runs the tasks of a schedule on a few threads: reads, kernels and checksums in parallel, writes to each file in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from ..binding.bind import Bound
from ..fault import Fault
from ..files.file_limit import room
from ..files.stamps import refuse_changed
from ..files.window import paths_of
from ..journal.partial import Journal
from ..kernels.kernels import Kernel, prepare
from ..progress import EVERY_SECONDS, OnProgress, Progress
from .copy_range import Copier
from .fill import Filler, Sources, buffer
from .schedule import Schedule, Task, reworked_bytes
from .target_files import Cancelled, Targets

LOOK_SECONDS = 5.0  # how often it is seen whether the sources are still the same; less often where that takes long


def work_through(
    bound: Bound,
    plan: Schedule,
    root: str,
    workers: int,
    progress: OnProgress | None,
    kernels: Mapping[int, Kernel] | None,
    began: float,
    journal: Journal | None = None,
) -> tuple[int, int]:
    """Writes what the tasks of `plan` say to files below `root`, but for what the journal knows to be finished; bytes read, kernel calls."""
    most = room(max(len(bound.files), len({path for w in bound.windows if w is not None for path in paths_of(w)})))
    prepare(reworked_bytes(bound))
    sources = Sources(most)
    copier = Copier(sources, journal is None and not any(file.layout.needs_crc for file in bound.files))
    tasks = plan.tasks if journal is None else [task for task in plan.tasks if not _finished(task, bound, journal)]
    targets = Targets(bound, root, tasks, copier, most, journal)
    numbers = iter(range(len(tasks)))
    lock = threading.Lock()
    failures: list[BaseException] = []
    fillers: list[Filler] = []
    done = 0 if journal is None else journal.kept_bytes
    look = time.monotonic() + LOOK_SECONDS

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
                task, lift = tasks[number], copier.on
                for job, chunk, base in task.items:
                    filler.fill(job, job.recipe.piece(chunk), into, window, base, lift and job.single)
                written = targets.write(number, task, window, lift)
                with lock:
                    done += written
        except Cancelled:
            pass
        except MemoryError:
            failures.append(_no_memory(plan, workers))
            targets.stop()
        except BaseException as failure:
            failures.append(failure)
            targets.stop()

    threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    try:
        for thread in threads:
            _start(thread)
        for thread in threads:
            while thread.is_alive():
                thread.join(EVERY_SECONDS if progress or journal is not None else 1.0)
                if journal is not None:
                    journal.commit(now=False)
                if (now := time.monotonic()) >= look:
                    refuse_changed(bound.stamps)
                    look = time.monotonic() + max(LOOK_SECONDS, 20 * (time.monotonic() - now))
                if progress:
                    spent = time.perf_counter() - began
                    progress(Progress("write", done, bound.bytes_written, plan.buffer_bytes * workers, spent))
    except BaseException:
        targets.stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        raise
    finally:
        targets.close()
        sources.close()
    if failures:
        raise failures[0]
    return sum(f.bytes_read for f in fillers), sum(f.calls for f in fillers)


def _finished(task: Task, bound: Bound, journal: Journal) -> bool:
    """Whether all that a task writes was written by a run before."""
    targets = (bound.tensors[i] for job, _, _ in task.items for members in job.members for i in members)
    return all((target.file, target.region) in journal.done for target in targets)


def _start(thread: threading.Thread) -> None:
    try:
        thread.start()
    except RuntimeError:
        raise Fault("no-threads", "the system starts no more threads for this process", help="use fewer --workers") from None


def _no_memory(plan: Schedule, workers: int) -> Fault:
    return Fault("out-of-memory", f"the system has no {plan.buffer_bytes * workers:,} bytes for buffers", help="use less --memory or fewer --workers")
