"""What the passes of `pipeline` hand on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..runtime.plan.plan import Plan, Proof, Step
from .algebra.compose import Move
from .algebra.lower import Lowered, MeanTensor
from .identify.match import Found
from .settle.resolve import Side


@dataclass(frozen=True, eq=False)
class Work:
    """A conversion on its way to a plan: what was asked first, and then what each pass of `PASSES` adds."""

    source: Side
    target: Side
    found: Sequence[Found] = ()
    compare_all: bool = False
    dtype: str | None = None
    files: tuple[tuple[str, str], ...] = ()
    # lowered: what is stored on both sides, with tensors that are made among those of the source
    left: tuple[Lowered, ...] = ()
    right: tuple[Lowered, ...] = ()
    means: tuple[MeanTensor, ...] = ()
    # proved
    proofs: tuple[Proof, ...] = ()
    # composed: what is written, and which copies must be equal
    moves: tuple[Move, ...] = ()
    compared: tuple[Move, ...] = ()
    # optimised
    steps: tuple[Step, ...] = ()
    checks: tuple[Step, ...] = ()
    # planned
    plan: Plan | None = None
