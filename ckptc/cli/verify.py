"""`ckptc verify` and `ckptc diff`: from options to a report, and its exit code, 0 for equal and 1 for different."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from . import options
from .convert import MEMORY, Mapping

DIFFERENT = 1

Judged = Annotated[str, typer.Argument(metavar="DST", help="What to judge: a folder, a file, or ORG/NAME on the hub.", show_default=False)]
ToFound = Annotated[str | None, typer.Option("--to", metavar="LAYOUT", help="The layout of DST (default: found from its files).")]
One = Annotated[str, typer.Argument(metavar="A", help="A folder, a file, or ORG/NAME on the hub.", show_default=False)]
Other = Annotated[str, typer.Argument(metavar="B", help="What to compare with it.", show_default=False)]
Explain = Annotated[bool, typer.Option("--explain/--no-explain", help="Say what would make equal what differs.")]


def verify(
    src: options.Source,
    dst: Judged,
    from_: options.From = None,
    to: ToFound = None,
    mapping: Mapping = None,
    family: options.Family = None,
    config: options.Config = None,
    revision: options.Revision = None,
    tp: options.Tp = None,
    pp: options.Pp = None,
    vpp: options.Vpp = None,
    ep: options.Ep = None,
    etp: options.Etp = None,
    set_: options.Set = None,
    from_set: options.FromSet = None,
    stages: options.Stages = None,
    from_stages: options.FromStages = None,
    accept: options.Accept = None,
    memory: options.Memory = MEMORY,
    explain: Explain = True,
    progress: options.Progress = True,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Say whether DST holds exactly what SRC holds, whoever wrote it."""
    from ..checking.verify import verify as judge
    from ..meter import Meter

    with Meter(progress and not quiet and not as_json) as meter:
        found = judge(
            src, dst, to=to, from_=from_, mapping=mapping, family=family, config=config, revision=revision, accept=accept or (),
            stages=options.stages(stages), from_stages=options.stages(from_stages, "--from-stages"),
            settings=options.settings(set_, "--set", tp=tp, pp=pp, vpp=vpp, ep=ep, etp=etp),
            from_settings=options.settings(from_set, "--from-set"), explain=explain, memory=memory, progress=meter,
        )  # fmt: skip
    say(found, quiet, as_json)


def diff(
    a: One,
    b: Other,
    memory: options.Memory = MEMORY,
    explain: Explain = True,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Compare two checkpoints of the same names, tensor by tensor, without any mapping."""
    from ..checking.diff import diff as compare

    say(compare(a, b, explain=explain, memory=memory), quiet, as_json)


def say(found: Any, quiet: bool, as_json: bool) -> None:
    """Print a report, and leave with its exit code."""
    if as_json:
        print(json.dumps(found.record(), indent=2))
    elif not quiet:
        print(found)
    if not found.same:
        raise typer.Exit(DIFFERENT)
