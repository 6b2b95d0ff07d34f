"""A plan and how it was asked for in; what judges the files that it writes, before they get their final name, out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..choices.settings import DEGREES
from ..library import mapping_files as library
from ..optimizer.folder import FOLDER as STATE
from ..runtime.checkpoint.checkpoint import Checkpoint
from ..runtime.fault import Fault
from ..runtime.plan.plan import Plan
from .verify import verify

MOST_SAID = 3


def judge_of(source: Checkpoint, data: Plan, options: Mapping[str, Any], running: Mapping[str, Any]) -> Callable[[str], None]:
    """For `Plan.run`: raises `Fault` where what was written does not hold what the source holds.

    `options` are those of `ckptc.plan`, `running` those of `Plan.run`. Layouts, degrees and parameters are the plan's own.
    Optimizer state is not compared.
    """
    source = replace(source, entries=tuple(e for e in source.entries if not e.file.startswith(f"{STATE}/")))
    asked = {name: options[name] for name in ("mapping", "config", "revision", "stages", "from_stages", "accept") if options.get(name) is not None}
    settings = {**(options.get("settings") or {}), **{name: options[name] for name in DEGREES if name in options}}
    family = next(f for f in library.families(options.get("mapping")) if f.name == data.mapping)
    own = {p.name for p in family.layout(data.target.layout).params}
    settings |= {name: value for name, value in (*data.target.ranks, *data.target.params) if name in own}
    limits = {name: running[name] for name in ("memory", "progress") if running.get(name) is not None}

    def judge(written: str) -> None:
        found = verify(
            source, written, to=data.target.layout, from_=data.source.layout, family=data.mapping, settings=settings,
            from_settings=dict(data.source.params), **asked, **limits,
        )  # fmt: skip
        if not found.same:
            said = [str(each).replace("\n", ";") for each in found.differences]
            more = (f"... and {len(said) - MOST_SAID} more",) if len(said) > MOST_SAID else ()
            raise Fault(
                "not-verified", f"what was written does not hold what {source.path} holds: {len(said)} tensors differ",
                notes=(*said[:MOST_SAID], *more), help="nothing was left behind; please report it, with the command and these lines",
            )  # fmt: skip

    return judge
