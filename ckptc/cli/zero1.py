"""`ckptc zero1`: from options to a plan for optimizer state, and from the plan to files and a summary."""

from __future__ import annotations

from typing import Any

from ..usage import UsageError
from . import options
from .parse import Argument, Command, Option

NAME = "ckptc zero1"
SOURCE = Argument("SRC", "The checkpoint's folder, or its optim folder.")
FULL = Option(("--full",), "Write uncut state, one file per tensor and pipeline parallel rank.", default=False)
CONTAINER = Option(("--format",), "The container to write, pt or xser (default: as SRC).", "FORMAT")


def zero1(said: dict[str, Any]) -> None:
    if said["dp"] is None and not said["full"]:
        raise UsageError("missing option '--dp' or '--full'", NAME)
    if said["dp"] is not None and said["full"]:
        raise UsageError("--dp cuts the state, and --full writes it uncut: give one of them", NAME)
    from ..reshard_zero1 import plan
    from .running import Running

    made = plan(said["src"], dp=said["dp"], format=said["format"])
    assert made.source is not None
    Running.of(said).execute(made, said["src"], made.source.path, said["dst"])


ZERO1 = Command(
    "Change the data parallel degree of NxD's zero1 optimizer state. DST gets the rank files themselves.",
    (SOURCE, options.DESTINATION),
    (
        ("What to write", (options.DP, FULL, CONTAINER)),
        ("How it runs", (options.COPIES, options.DRY_RUN, *options.WRITING, *options.WORK, *options.REPORTING)),
    ),
    zero1,
)
