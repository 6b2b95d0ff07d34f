"""`ckptc convert`, `compile` and `run`: from options to a plan, and from a plan to files and a summary."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options

if TYPE_CHECKING:
    from ..api import Plan

MEMORY, WORKERS, SHARD = "512MiB", 2, "5GB"

CompareAll = Annotated[
    bool, typer.Option("--compare-all-copies", help="Also compare tensors that every rank holds a copy of.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and its totals, and write nothing.")]
Mapping = Annotated[
    str | None, typer.Option("--mapping", metavar="FILE|NAME", help="A mapping of your own (default: those that ship).")
]
MappingName = Annotated[
    str, typer.Argument(metavar="MAPPING", help="A .ckmap file, or the name of one that ships.", show_default=False)
]
PlanFile = Annotated[
    Path, typer.Argument(metavar="PLAN", help="A plan that `ckptc compile -o` wrote.", show_default=False)
]
Optimizer = Annotated[bool, typer.Option("--optimizer", help="Take zero1 optimizer state (SRC/optim) along.")]
SingleFile = Annotated[
    str | None,
    typer.Option("--single-file", metavar="NAME", help="All tensors in one file of this name, and nothing else."),
]
Emit = Annotated[
    str | None,
    typer.Option("--emit", metavar="python", help="Write a self-contained Python module instead of a plan file."),
]
Verify = Annotated[
    bool, typer.Option("--verify", help="Read back what was written and compare it with SRC, before it gets its name.")
]
Output = Annotated[Path | None, typer.Option("-o", "--output", metavar="FILE", help="Where to write (default: print).")]


def convert(
    src: options.Source,
    dst: options.Destination,
    to: options.To,
    from_: options.From = None,
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
    format: options.Format = None,
    dtype: options.Dtype = None,
    model_id: options.ModelId = None,
    tokenizer: options.Tokenizer = None,
    config_base: options.ConfigBase = None,
    set_config: options.SetConfig = None,
    artifact: options.Artifact = None,
    accept: options.Accept = None,
    optimizer: Optimizer = False,
    dp: options.Dp = None,
    single_file: SingleFile = None,
    memory: options.Memory = MEMORY,
    workers: options.Workers = WORKERS,
    max_shard_size: options.MaxShardSize = SHARD,
    overwrite: options.Overwrite = False,
    merge: options.Merge = False,
    dry_run: DryRun = False,
    compare_copies: options.CompareCopies = True,
    compare_all_copies: CompareAll = False,
    verify: Verify = False,
    progress: options.Progress = True,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Convert a checkpoint to another layout or degree."""
    settings = options.settings(set_, "--set", tp=tp, pp=pp, vpp=vpp, ep=ep, etp=etp)
    from_settings = options.settings(from_set, "--from-set")
    config_values, artifacts = options.config_values(set_config), options.pairs_of(artifact, "--artifact")
    if single_file is not None and (config_base or config_values or artifacts or tokenizer):
        raise typer.BadParameter("no config or tokenizer is written beside the file", param_hint="--single-file")
    stage_list, from_stage_list = options.stages(stages), options.stages(from_stages, "--from-stages")
    from .. import api
    from ..hub import find_source
    from ..runtime.path_names import refuse_remote_target
    from ..single_file import into_single_file

    refuse_remote_target(dst)
    place = find_source(src, revision, progress and not quiet and not as_json)
    asked: dict[str, Any] = {
        "to": to, "from_": from_, "mapping": mapping, "family": family, "config": config, "format": format,
        "dtype": dtype, "compare_all": compare_all_copies, "stages": stage_list, "from_stages": from_stage_list,
        "from_settings": from_settings, "optimizer": optimizer, "dp": dp, "model_id": model_id, "tokenizer": tokenizer,
        "config_base": config_base, "set_config": config_values, "artifacts": artifacts, "accept": accept or (), "settings": settings,
    }  # fmt: skip
    plan = api.plan(place, **asked)
    if single_file is not None:
        plan = into_single_file(plan, single_file)
    judge = None
    if verify:
        from ..checking.written import judge_of

        assert plan.source is not None
        judge = judge_of(plan.source, plan.data, asked, {"memory": memory})
    execute(
        plan, src, place, dst, dry_run=dry_run, progress=progress, quiet=quiet, as_json=as_json, memory=memory,
        workers=workers, max_shard_size=max_shard_size, overwrite=overwrite, merge=merge, compare_copies=compare_copies, judge=judge,
    )  # fmt: skip


def run(
    plan: PlanFile,
    src: options.Source,
    dst: options.Destination,
    revision: options.Revision = None,
    memory: options.Memory = MEMORY,
    workers: options.Workers = WORKERS,
    max_shard_size: options.MaxShardSize = SHARD,
    overwrite: options.Overwrite = False,
    merge: options.Merge = False,
    dry_run: DryRun = False,
    compare_copies: options.CompareCopies = True,
    progress: options.Progress = True,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Run a saved plan on a checkpoint."""
    from ..api import load_plan
    from ..hub import find_source

    loaded = load_plan(plan)
    place = find_source(src, revision, progress and not quiet and not as_json)
    execute(
        loaded, src, place, dst, dry_run=dry_run, progress=progress, quiet=quiet, as_json=as_json, memory=memory,
        workers=workers, max_shard_size=max_shard_size, overwrite=overwrite, merge=merge, compare_copies=compare_copies,
    )  # fmt: skip


def compile(
    mapping: MappingName,
    from_: options.FromNamed,
    to: options.To,
    family: options.Family = None,
    config: options.Config = None,
    tp: options.Tp = None,
    pp: options.Pp = None,
    vpp: options.Vpp = None,
    ep: options.Ep = None,
    etp: options.Etp = None,
    set_: options.Set = None,
    from_set: options.FromSet = None,
    stages: options.Stages = None,
    from_stages: options.FromStages = None,
    format: options.Format = None,
    dtype: options.Dtype = None,
    model_id: options.ModelId = None,
    accept: options.Accept = None,
    emit: Emit = None,
    output: Output = None,
) -> None:
    """Compile and prove a plan without a checkpoint."""
    if emit not in (None, "python"):
        raise typer.BadParameter(f"`{emit}` cannot be emitted, only `python`", param_hint="--emit")
    plan = compiled(mapping, from_, to, family, config, settings=options.settings(set_, "--set", tp=tp, pp=pp, vpp=vpp, ep=ep, etp=etp),
                    from_settings=options.settings(from_set, "--from-set"), stages=stages, from_stages=from_stages, format=format, dtype=dtype, model_id=model_id, accept=accept or ())  # fmt: skip
    for note in plan.notes:
        print(f"note: {note}", file=sys.stderr)
    if emit:
        text = plan.emit(output)
        if output is None:
            print(text, end="" if text.endswith("\n") else "\n")
    elif output is not None:
        plan.save(output)
    else:
        print(plan)
    if output is not None:
        print(f"{output}: {output.stat().st_size:,} bytes")


def compiled(
    mapping: str, from_: str, to: str, family: str | None, config: str | None, *, settings: dict[str, Any],
    from_settings: dict[str, Any], stages: str | None, from_stages: str | None = None, format: str | None = None, dtype: str | None = None, model_id: str | None = None,
    accept: Collection[str] = (),
) -> Plan:  # fmt: skip
    """A plan from options alone."""
    from .. import api

    return api.compile(
        mapping, from_=from_, to=to, family=family, config=config, format=format, dtype=dtype,
        stages=options.stages(stages), from_stages=options.stages(from_stages, "--from-stages"), from_settings=from_settings, model_id=model_id, accept=accept, settings=settings,
    )  # fmt: skip


def execute(
    plan: Plan, src: str, place: str, dst: Path,
    *, dry_run: bool, progress: bool, quiet: bool, as_json: bool, **running: Any,
) -> None:  # fmt: skip
    """Say what will happen, do it, say what happened. `place` is where the files of `src` are."""
    from ..account import header, record
    from ..meter import Meter, size
    from ..runtime.path_names import refuse_remote_target

    refuse_remote_target(dst)
    totals = plan.totals(
        place, max_shard_size=running["max_shard_size"], memory=running["memory"], workers=running["workers"], dst=dst
    )
    if plan.source is not None and plan.source.tag and not quiet:
        print(f"note: `{plan.source.tag}` is read, the newest complete checkpoint of {src}", file=sys.stderr)
    said = {"source": src, "destination": str(dst), "plan": record(plan.data), "totals": totals.record()}
    decoded = [str(each) for each in totals.decoded]  # which the totals say
    for note in () if quiet else (note for note in plan.notes if note not in decoded):
        print(f"note: {note}", file=sys.stderr)
    if not as_json and not quiet:
        print(plan if dry_run else header(plan.data))
        print(totals)
    if dry_run:
        if as_json:
            print(json.dumps({**said, "dry_run": True}, indent=2))
        return
    with Meter(progress and not quiet) as meter:
        report = plan.run(dst, source=place, progress=meter, **running)
    if as_json:
        did = {"seconds": round(report.seconds, 3), "bytes_read": report.bytes_read, "bytes_written": report.bytes_written,
               "peak_buffer_bytes": report.peak_buffer_bytes, "files": list(report.files)}  # fmt: skip
        print(json.dumps({**said, "report": did}, indent=2))
    elif not quiet:
        rate = report.bytes_written / max(report.seconds, 1e-9) / 1e9
        files = f"{len(report.files)} file{'s' * (len(report.files) != 1)}"
        print(f"done    {dst}: {size(report.bytes_written)} in {files}, {report.seconds:.1f} s, {rate:.2f} GB/s")
