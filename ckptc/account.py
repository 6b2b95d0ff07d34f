"""A plan in; what it will do, in few lines for a person or as a record for `--json`, out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .compiler.say.explain import describe
from .meter import size
from .runtime.checkpoint.decoded import Decoded, decoded_in

if TYPE_CHECKING:
    from .runtime.binding.bind import Bound
    from .runtime.plan.plan import Plan, Side


@dataclass(frozen=True)
class Totals:
    """What a run will need, known before it starts. `files` counts configs and side files too. `decoded` says what is
    calculated from codes and scales and not copied."""

    bytes_read: int
    bytes_written: int
    files: int
    disk_bytes: int
    buffer_bytes: int
    decoded: tuple[Decoded, ...] = ()

    def __str__(self) -> str:
        return "".join(f"{each}\n" for each in self.decoded) + (
            f"totals  read {self.bytes_read:,} bytes ({size(self.bytes_read)}), "
            f"write {self.bytes_written:,} bytes ({size(self.bytes_written)}) in {self.files:,} file{'s' * (self.files != 1)}\n"
            f"needs   {size(self.disk_bytes)} of disk, {size(self.buffer_bytes)} of buffers"
        )

    def record(self) -> dict[str, Any]:
        return asdict(self)


def totals(bound: Bound, memory: int, workers: int) -> Totals:
    """Of a plan that is bound to its checkpoint."""
    from .runtime.engine.schedule import peak_buffer_bytes

    return Totals(
        bound.bytes_read, bound.bytes_written, len(bound.names), bound.disk_need, peak_buffer_bytes(bound, memory, workers),
        decoded_in(bound.windows),
    )


def header(plan: Plan) -> str:
    """The first lines of the plan: what becomes what, the axes, and the proof."""
    lines = describe(plan).splitlines()
    end = next((i for i, line in enumerate(lines) if line.startswith("copies")), len(lines))
    return "\n".join(lines[:end])


def record(plan: Plan) -> dict[str, Any]:
    """The plan's facts, without its steps."""
    return {
        "mapping": plan.mapping,
        "axes": dict(plan.axes),
        "source": _side(plan.source),
        "target": _side(plan.target),
        "dtype": plan.dtype,
        "steps": len(plan.steps),
        "checks": len(plan.checks),
    }


def _side(side: Side) -> dict[str, Any]:
    settings = {"ranks": dict(side.ranks), "settings": dict(side.params), "ignored": list(side.ignored)}
    return {"layout": side.layout, "format": side.format, **settings, "proof": asdict(side.proof)}
