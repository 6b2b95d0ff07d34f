"""Which ranks to stream, in; torch tensors under the names that the target gives them, out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .runtime.binding.bind import Bound
from .runtime.engine import engine
from .runtime.fault import Fault
from .runtime.plan.plan import Side

if TYPE_CHECKING:
    import torch


def which(side: Side, ranks: Mapping[str, int] | str | None, degrees: Mapping[str, int]) -> dict[str, int] | None:
    """The rank of each degree; None for all of them. Raises `Fault` where a degree above 1 has none, or it is none of its ranks."""
    there = dict(side.ranks)
    if ranks == "all":
        if degrees:
            raise Fault("unknown-rank", f"all ranks are asked for, and {', '.join(degrees)} too", help='leave one of them out: ranks="all", or one rank')
        return None
    if isinstance(ranks, str):
        raise Fault("unknown-rank", f"`{ranks}` names no ranks", help='write ranks="all", or one rank, as in tp=0')
    chosen = {**(ranks or {}), **degrees}
    for rank, number in chosen.items():
        if type(number) is not int or not 0 <= number < there.get(rank, 0):
            known = ", ".join(f"{name} = 0 to {n - 1}" for name, n in there.items()) or "no ranks"
            raise Fault("unknown-rank", f"layout `{side.layout}` has no {rank} = {number}", notes=(f"it has {known}",))
    missing = [name for name, n in there.items() if n > 1 and name not in chosen]
    if missing:
        several = ", ".join(f"{name} = {there[name]}" for name in missing)
        example = ", ".join(f"{name}=0" for name in there if there[name] > 1)
        raise Fault(
            "no-rank", f"layout `{side.layout}` is cut over {several}, and each rank has tensors of the same names",
            help=f'say which rank: stream({example}), or take all with their files: stream(ranks="all")',
        )  # fmt: skip
    return chosen


def stream(bound: Bound, ranks: Mapping[str, int], device: str) -> Iterator[tuple[str, torch.Tensor]]:
    """`(name, tensor)` of one rank."""
    for name, dtype, shape, buffer in engine.stream(bound, ranks):
        yield name, _tensor(dtype, shape, buffer, device)


def stream_files(bound: Bound, device: str) -> Iterator[tuple[tuple[str, str], torch.Tensor]]:
    """`((file, name), tensor)` of all ranks."""
    files = [_file(bound, number) for number in bound.order]
    for file, (name, dtype, shape, buffer) in zip(files, engine.stream(bound), strict=True):
        yield (file, name), _tensor(dtype, shape, buffer, device)


def _file(bound: Bound, number: int) -> str:
    """The rank's file, or, where the container chooses files, the one that the tensor would be written to."""
    tensor = bound.tensors[number]
    pattern = bound.targets[tensor.family].stored.file
    return pattern.format(**bound.coords(tensor)) if pattern else bound.files[tensor.file].name


def _tensor(dtype: str, shape: tuple[int, ...], buffer: Any, device: str) -> torch.Tensor:
    import torch

    kind = getattr(torch, dtype)
    flat = torch.frombuffer(buffer, dtype=kind) if len(buffer) else torch.empty(0, dtype=kind)
    return flat.reshape(shape).to(device)
