"""How a plan is run, as the options that `convert`, `run` and `zero1` share say; the run itself, and what is said of it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .options import MEMORY, SHARD, WORKERS

if TYPE_CHECKING:
    from ..planning.planned import Plan


@dataclass(frozen=True)
class Running:
    """The options of running; the defaults are those of the command line."""

    memory: str = MEMORY
    workers: int = WORKERS
    max_shard_size: str = SHARD
    overwrite: bool = False
    merge: bool = False
    compare_copies: bool = True
    resume: bool = False
    manifest: bool = False
    dry_run: bool = False
    progress: bool = True
    quiet: bool = False
    json: bool = False

    @classmethod
    def of(cls, said: dict[str, Any]) -> Running:
        return cls(**{name: said[name] for name in cls.__dataclass_fields__ if name in said})

    @property
    def talks(self) -> bool:
        """Whether progress may be shown."""
        return self.progress and not self.quiet and not self.json

    def execute(self, plan: Plan, src: str, place: str, dst: Path, judge: Callable[[str], None] | None = None) -> None:
        """Say what will happen, do it, say what happened. `place` is where the files of `src` are. `judge` is asked of what
        was written before it gets its name."""
        from ..account import header, record
        from ..failure import Interrupted
        from ..meter import Meter, size
        from ..runtime.path_names import refuse_remote_target

        refuse_remote_target(dst)
        totals = plan.totals(place, max_shard_size=self.max_shard_size, memory=self.memory, workers=self.workers, dst=dst)
        if plan.source is not None and plan.source.tag and not self.quiet:
            print(f"note: `{plan.source.tag}` is read, the newest complete checkpoint of {src}", file=sys.stderr)
        said = {"source": src, "destination": str(dst), "plan": record(plan.data), "totals": totals.record()} if self.json else {}
        decoded = [str(each) for each in totals.decoded]  # which the totals say
        for note in () if self.quiet else (note for note in plan.notes if note not in decoded):
            print(f"note: {note}", file=sys.stderr)
        if not self.json and not self.quiet:
            print(plan if self.dry_run else header(plan.data))
            print(totals)
        if self.dry_run:
            if self.json:
                print(json.dumps({**said, "dry_run": True}, indent=2))
            return
        with Meter(self.progress and not self.quiet) as meter:
            try:
                report = plan.run(
                    dst, source=place, progress=meter, memory=self.memory, workers=self.workers, max_shard_size=self.max_shard_size,
                    overwrite=self.overwrite, merge=self.merge, compare_copies=self.compare_copies, judge=judge, resume=self.resume,
                    manifest=self.manifest,
                )  # fmt: skip
            except KeyboardInterrupt as stopped:
                raise Interrupted(*stopped.args) from None
        if self.json:
            did = {"seconds": round(report.seconds, 3), "bytes_read": report.bytes_read, "bytes_written": report.bytes_written,
                   "peak_buffer_bytes": report.peak_buffer_bytes, "files": list(report.files)}  # fmt: skip
            print(json.dumps({**said, "report": did}, indent=2))
        elif not self.quiet:
            rate = report.bytes_written / max(report.seconds, 1e-9) / 1e9
            files = f"{len(report.files)} file{'s' * (len(report.files) != 1)}"
            print(f"done    {dst}: {size(report.bytes_written)} in {files}, {report.seconds:.1f} s, {rate:.2f} GB/s")
