"""A plan in, the same plan with every tensor in one file out."""

from __future__ import annotations

from dataclasses import replace

from ..runtime.fault import Fault
from ..runtime.inside import why_outside
from .planned import Plan


def into_single_file(plan: Plan, name: str) -> Plan:
    """The plan with all tensors in one file called `name`, and no config or side files.

    Only layouts that leave the choice of files to the container can be written so.
    """
    target = plan.data.target
    if any(s.file for s in target.stored):
        raise Fault(
            "not-one-file", f"layout `{target.layout}` has a file per rank",
            help="leave --single-file out, or convert to a layout without ranks, such as hf",
        )  # fmt: skip
    if why_outside(name) or name.startswith(".") or "{" in name or "}" in name:
        raise Fault(
            "bad-file-name",
            f"`{name}` is not a file name within the destination",
            help="use a plain name such as checkpoint.pt",
        )
    format = "pt" if target.format == "nemo" else target.format
    one = replace(target, format=format, stored=tuple(replace(s, file=name) for s in target.stored), carry=())
    return replace(plan, data=replace(plan.data, target=one, files=()), extra=())
