"""`ckptc zero1`: from options to a plan for optimizer state, and from the plan to files and a summary."""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .convert import MEMORY, SHARD, WORKERS, DryRun, execute

Folder = Annotated[
    str,
    typer.Argument(metavar="SRC", help="The checkpoint's folder, or its optim folder.", show_default=False),
]
Full = Annotated[bool, typer.Option("--full", help="Write uncut state, one file per tensor and pipeline parallel rank.")]
Container = Annotated[
    str | None, typer.Option("--format", metavar="FORMAT", help="The container to write, pt or xser (default: as SRC).")
]


def zero1(
    src: Folder,
    dst: options.Destination,
    dp: options.Dp = None,
    full: Full = False,
    format: Container = None,
    memory: options.Memory = MEMORY,
    workers: options.Workers = WORKERS,
    overwrite: options.Overwrite = False,
    merge: options.Merge = False,
    dry_run: DryRun = False,
    compare_copies: options.CompareCopies = True,
    progress: options.Progress = True,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Change the data parallel degree of NxD's zero1 optimizer state. DST gets the rank files themselves."""
    if (dp is not None) == full:
        raise typer.BadParameter("one of --dp N and --full is needed", param_hint="--dp")
    from ..reshard_zero1 import plan

    made = plan(src, dp, format)
    assert made.source is not None
    execute(
        made, src, made.source.path, dst, dry_run=dry_run, progress=progress, quiet=quiet, as_json=as_json, memory=memory,
        workers=workers, max_shard_size=SHARD, overwrite=overwrite, merge=merge, compare_copies=compare_copies,
    )  # fmt: skip
