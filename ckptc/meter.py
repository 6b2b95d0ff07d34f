"""Progress records in, a bar on a terminal or a plain line every few seconds out; all on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .runtime.progress import Progress

EVERY_SECONDS = 5.0
WORDS = {"compare": "comparing copies", "write": "writing", "verify": "verifying"}


def size(count: float) -> str:
    """Bytes for a person, three digits: `1.23 GB`."""
    for unit in ("bytes", "kB", "MB", "GB", "TB"):
        if count < 999.5 or unit == "TB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.{1 if count >= 10 else 2}f} {unit}"


def resident_bytes() -> int:
    """What the process holds in memory now, mapped libraries included; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            pages = int(file.read().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    import resource

    return pages * resource.getpagesize()


class Meter:
    """Called with every progress record of a run, inside a `with`."""

    def __init__(self, shown: bool = True, every_seconds: float = EVERY_SECONDS) -> None:
        self.shown, self.every = shown and sys.stderr is not None, every_seconds
        self.said = time.monotonic()
        self.bar: Any = None
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Meter:
        if self.shown and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[facts]}"),
                TimeRemainingColumn(),
            )
            self.bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bar.stop()

    def __call__(self, now: Progress) -> None:
        if self.bar is not None:
            if now.phase not in self.tasks:
                self.tasks[now.phase] = self.bar.add_task(
                    WORDS.get(now.phase, now.phase), total=now.total_bytes, facts=""
                )
            self.bar.update(self.tasks[now.phase], completed=now.done_bytes, facts=_facts(now))
        elif self.shown and time.monotonic() - self.said >= self.every:
            self.said = time.monotonic()
            left = (now.total_bytes - now.done_bytes) * now.seconds / now.done_bytes if now.done_bytes else 0.0
            print(f"{WORDS.get(now.phase, now.phase)}: {_facts(now)}, {left:.0f} s left", file=sys.stderr, flush=True)


def _facts(now: Progress) -> str:
    rate = now.done_bytes / now.seconds / 1e9 if now.seconds else 0.0
    memory = f"{size(now.buffer_bytes)} buffers"
    resident = resident_bytes()
    if resident:
        memory += f", {size(resident)} resident"
    return f"{size(now.done_bytes)} of {size(now.total_bytes)}, {rate:.2f} GB/s, {memory}"
