"""Plans that copy tensors, as they are, to distributed checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

import torch

from ckptc.runtime.binding.bind import Bound, bind
from ckptc.runtime.checkpoint.checkpoint import open_checkpoint
from ckptc.runtime.plan.plan import Loop, Over, Plan, Step, Stored

from ..random_plans import box, side

Tensors = dict[str, torch.Tensor]
Axes = tuple[tuple[str, int], ...]

EXTRA = "layers[{layer}].fc1._extra_state"
OBJECTS = (
    (EXTRA, (("layer", 0, 4),)),
    ("layers[{layer}].experts[{expert}].fc1._extra_state", (("layer", 0, 4), ("expert", 0, 3))),
    ("mtp.layers.{mtp}.fc1._extra_state", (("mtp", 3, 2),)),
    ("output_layer._extra_state", ()),
)  # fmt: skip
OBJECT_KEYS = [
    *(f"layers.fc1._extra_state/shard_{i}_4" for i in range(4)),
    *(f"layers.experts.fc1._extra_state/shard_{i}.{j}_4.3" for i in range(4) for j in range(3)),
    *(f"mtp.layers.{i}.fc1._extra_state/shard_0_1" for i in (3, 4)),
    "output_layer._extra_state/shard_0_1",
]


def family(name: str, shape: tuple[int, ...], axes: Axes = (), folder: str = "") -> Stored:
    """A tensor for every combination of `axes`, from 0."""
    return Stored(name, folder, tuple(axis for axis, _ in axes), (box(tuple(extent for _, extent in axes)),), shape)


def copying(families: Sequence[Stored], format: str) -> Plan:
    """Every tensor of a torch file, under the name that it has there, to a checkpoint of `format`."""
    steps = []
    for number, each in enumerate(families):
        (only,) = each.boxes
        loops = (Loop(prod(each.shape), 1, 1),) if prod(each.shape) > 1 else ()
        steps.append(Step(number, number, only.first, only.first, tuple(Over(n, at, at) for n, at in only.loops), 0, 0, loops, "range"))
    source = tuple(replace(each, file="") for each in families)
    return Plan("m", side(source, "pt"), side(tuple(families), format), tuple(steps))


def model(only: torch.dtype | None = None) -> tuple[list[Stored], Tensors]:
    """A model's families and tensors, of several dtypes or of one: stacked along one axis and two, and not stacked."""
    torch.manual_seed(0)
    tensors: Tensors = {"embedding.weight": torch.randn(7, 6), "final_norm.weight": torch.randn(6).half()}
    for i in range(4):
        tensors[f"layers[{i}].fc1.weight"] = torch.randn(5, 6).bfloat16()
        tensors[f"layers[{i}].fc1.norm"] = torch.randn(6)
        for j in range(3):
            tensors[f"layers[{i}].experts[{j}].fc1.weight"] = torch.randn(8, 6).bfloat16()
    if only is not None:
        tensors = {name: tensor.to(only) for name, tensor in tensors.items()}
    layers = (("layer", 4),)
    return [
        family("embedding.weight", (7, 6)),
        family("layers[{layer}].fc1.weight", (5, 6), layers),
        family("layers[{layer}].fc1.norm", (6,), layers),
        family("layers[{layer}].experts[{expert}].fc1.weight", (8, 6), (*layers, ("expert", 3))),
        family("final_norm.weight", (6,)),
    ], tensors


def stacked(tensors: Tensors) -> Tensors:
    """The tensors of `model` as they are stored."""
    return {
        "embedding.weight": tensors["embedding.weight"],
        "final_norm.weight": tensors["final_norm.weight"],
        "layers.fc1.weight": torch.stack([tensors[f"layers[{i}].fc1.weight"] for i in range(4)]),
        "layers.fc1.norm": torch.stack([tensors[f"layers[{i}].fc1.norm"] for i in range(4)]),
        "layers.experts.fc1.weight": torch.stack(
            [torch.stack([tensors[f"layers[{i}].experts[{j}].fc1.weight"] for j in range(3)]) for i in range(4)]
        ),
    }


def with_objects(plan: Plan) -> Plan:
    return replace(plan, target=replace(plan.target, objects=OBJECTS))


def bound_to(plan: Plan, tensors: Tensors, folder: Path, max_shard_bytes: int = 5_000_000_000) -> Bound:
    """The plan bound to a torch file of `tensors`."""
    source = folder / "in.pt"
    torch.save(tensors, source)
    return bind(plan, open_checkpoint(source), max_shard_bytes=max_shard_bytes)
