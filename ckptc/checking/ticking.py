"""Bytes that are compared in; progress for a person out, a few times a second."""

from __future__ import annotations

import time
from math import prod

from ..runtime.files.window import ITEM_BYTES
from ..runtime.progress import EVERY_SECONDS, OnProgress, Progress
from .sides import Read


class Ticking:
    """Called with how many bytes of the target were compared."""

    def __init__(self, progress: OnProgress | None, target: Read) -> None:
        self.progress = progress
        self.done, self.began, self.last = 0, time.monotonic(), 0.0
        self.total = sum(prod(e.shape) * ITEM_BYTES[e.dtype] for e in target.located.entries if e is not None)

    def __call__(self, nbytes: int) -> None:
        self.done += nbytes
        now = time.monotonic()
        if self.progress is not None and now - self.last > EVERY_SECONDS:
            self.last = now
            self.progress(Progress("verify", self.done, self.total, 0, now - self.began))
