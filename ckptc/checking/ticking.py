"""Elements that are compared in; progress for a person out, a few times a second."""

from __future__ import annotations

import time
from math import prod

from ..runtime.progress import EVERY_SECONDS, OnProgress, Progress
from .sides import Read


class Ticking:
    """Called with how many elements were compared. Bytes are not known here: elements stand in their place."""

    def __init__(self, progress: OnProgress | None, target: Read) -> None:
        self.progress = progress
        self.done, self.began, self.last = 0, time.monotonic(), 0.0
        self.total = sum(prod(e.shape) for e in target.located.entries if e is not None)

    def __call__(self, elements: int) -> None:
        self.done += elements
        now = time.monotonic()
        if self.progress is not None and now - self.last > EVERY_SECONDS:
            self.last = now
            self.progress(Progress("verify", self.done, self.total, 0, now - self.began))
