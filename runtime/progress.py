"""What a run tells while it works: one plain record, handed to a callback a few times a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Progress:
    """`phase` is "compare", "write" or "verify"; `done_bytes` never falls within a phase."""

    phase: str
    done_bytes: int
    total_bytes: int
    buffer_bytes: int
    seconds: float


OnProgress: TypeAlias = Callable[[Progress], None]
EVERY_SECONDS = 0.1
