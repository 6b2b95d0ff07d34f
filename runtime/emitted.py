"""What an emitted plan module needs: the plan's types, the kernel decorator, and a `main` that runs the plan."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .binding.bind import bind
from .checkpoint.checkpoint import open_checkpoint
from .engine.engine import Report, run
from .fault import Fault
from .plan.plan import Box, Loop, Made, Over, Plan, Proof, Side, Step, Stored
from .stopping import Stop, stoppable

__all__ = ["Box", "Loop", "Made", "Over", "Plan", "Proof", "Side", "Step", "Stored", "kernel", "main", "run_module"]


def kernel(function: Callable[..., None]) -> Callable[..., None]:
    """A copy kernel that Numba compiles on its first call, without the GIL, and keeps beside the module if it can."""
    compiled: list[Callable[..., None]] = []

    def call(*arguments: Any) -> None:
        if not compiled:
            compiled.append(_compiled(function))
        compiled[0](*arguments)

    return call


def _compiled(function: Callable[..., None]) -> Callable[..., None]:
    """A module that was loaded without a name in `sys.modules` would leave a cache that no other process can read."""
    try:
        import numba
    except ImportError:
        raise Fault("no-numba", "the plan's own kernels are compiled by numba, which is not installed", help="leave --compile out, or: pip install numba") from None
    compile_: Callable[..., Callable[..., None]] = numba.njit
    if function.__module__ in sys.modules:
        try:
            return compile_(function, nogil=True, cache=True)
        except RuntimeError:
            pass  # no place to cache it in
    return compile_(function, nogil=True)


def run_module(plan: Plan, kernels: Mapping[int, Callable[..., None]], source: str | Path, target: str | Path, **options: Any) -> Report:
    """Run an emitted plan on the checkpoint at `source`; options are those of `engine.run`. Without `kernels` the engine's
    own copies do the same, and nothing is compiled."""
    names = (name for stored in plan.source.stored for name in (stored.name, *stored.others))
    return run(bind(plan, open_checkpoint(source).for_names(names)), Path(target), kernels=dict(kernels), **options)


def main(plan: Plan, kernels: Mapping[int, Callable[..., None]]) -> None:
    """`python plan.py SRC DST [--overwrite] [--compile]`: exit status 0 done, 1 failed with a sentence, 2 usage, 128 and
    the signal's number where one stopped it. With `--compile` the module's kernels run, which Numba compiles for some
    seconds when they first do; without it the engine's own copies."""
    given = set(sys.argv[1:]) & {"--overwrite", "--compile"}
    args = [a for a in sys.argv[1:] if a not in given]
    if len(args) != 2 or any(a.startswith("-") for a in args):
        print(f"usage: python {Path(sys.argv[0]).name} SRC DST [--overwrite] [--compile]", file=sys.stderr)
        sys.exit(2)
    stop = Stop()
    try:
        with stoppable() as stop:
            report = run_module(plan, kernels if "--compile" in given else {}, args[0], args[1], overwrite="--overwrite" in given)
    except Fault as fault:
        print(fault, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("interrupted; nothing was left behind", file=sys.stderr)
        sys.exit(stop.exit_code)
    print(f"{args[1]}: {report.bytes_written:,} bytes in {len(report.files)} files, {report.seconds:.1f} s")
