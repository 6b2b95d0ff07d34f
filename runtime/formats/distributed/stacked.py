"""Stacked tensors: one tensor in a distributed checkpoint, many tensors of bracketed names in plans.

`layers[3].mlp.experts[5].fc1` is the part at index (3, 5) of what is stored as `layers.mlp.experts.fc1`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod

from ...fault import Fault
from ...files.indexed import INDEX, stacked_name


@dataclass(frozen=True)
class Stack:
    """A stored name and its parts: their indices, and where each is in the list of names. A tensor that is not
    stacked is one part, whose index is empty."""

    name: str
    extents: tuple[int, ...]
    indices: tuple[tuple[int, ...], ...]
    positions: tuple[int, ...]


def stacks(names: Sequence[str]) -> list[Stack]:
    """The stacks of `names`, by their first part. Faults where parts are missing, or there twice."""
    positions: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        positions.setdefault(stacked_name(name)[0], []).append(i)
    return [_stack(stored, [names[i] for i in members], tuple(members)) for stored, members in positions.items()]


def _stack(stored: str, names: list[str], positions: tuple[int, ...]) -> Stack:
    forms = dict.fromkeys(INDEX.sub("[]", name) for name in names)
    if len(forms) > 1:
        raise Fault(
            "mixed-stack", f"the parts of `{stored}` have their indices at different places, and would be one tensor",
            notes=tuple(forms)[:5], help="give them names that differ in more than their brackets",
        )  # fmt: skip
    indices = tuple(stacked_name(name)[1] for name in names)
    seen: set[tuple[int, ...]] = set()
    for name, index in zip(names, indices, strict=True):
        if index in seen:
            raise Fault("duplicate-tensor", f"`{name}` would be written twice to one checkpoint")
        seen.add(index)
    extents = tuple(max(along) + 1 for along in zip(*indices, strict=True))
    if prod(extents) != len(indices):
        absent = next(index for index in product(*map(range, extents)) if index not in seen)
        raise Fault(
            "incomplete-stack", f"`{stored}` would be stacked from {len(indices)} tensors, and its extents {list(extents)} need {prod(extents)}",
            notes=(f"there is none at index {list(absent)}",), help="write these tensors one by one, without brackets in their names",
        )  # fmt: skip
    return Stack(stored, extents, indices, positions)


@dataclass(frozen=True)
class StackedTensor:
    """A tensor as it is stored. All its parts have `shape`; the indices count along the axes before it."""

    stack: Stack
    dtype: str
    shape: tuple[int, ...]

    @property
    def whole(self) -> tuple[int, ...]:
        return (*self.stack.extents, *self.shape)

    @property
    def part(self) -> tuple[int, ...]:
        """The shape of a part within the whole."""
        return (*(1 for _ in self.stack.extents), *self.shape)


def stacked_tensors(tensors: Sequence[tuple[str, str, tuple[int, ...]]]) -> list[StackedTensor]:
    """The stored tensors that `tensors` (name, dtype, shape) are the parts of."""
    found: list[StackedTensor] = []
    for stack in stacks([name for name, _, _ in tensors]):
        first, dtype, shape = tensors[stack.positions[0]]
        for position in stack.positions:
            name, own_dtype, own_shape = tensors[position]
            if (own_dtype, own_shape) != (dtype, shape):
                raise Fault(
                    "uneven-stack", f"`{stack.name}` cannot be stacked: its parts differ",
                    notes=(f"{first}: {dtype} of shape {list(shape)}", f"{name}: {own_dtype} of shape {list(own_shape)}"),
                    help="write these tensors one by one, without brackets in their names, or make them alike",
                )  # fmt: skip
        found.append(StackedTensor(stack, dtype, shape))
    return found


def object_keys(objects: Sequence[tuple[str, tuple[tuple[str, int, int], ...]]]) -> list[str]:
    """The keys of objects, `Side.objects`, one per combination: the name without brackets, its index and extents."""
    names = [
        pattern.format(**dict(zip((axis for axis, _, _ in axes), values, strict=True)))
        for pattern, axes in objects
        for values in product(*(range(first, first + extent) for _, first, extent in axes))
    ]
    return [
        f"{stack.name}/shard_{_dotted(index or (0,))}_{_dotted(stack.extents or (1,))}"
        for stack in stacks(names)
        for index in stack.indices
    ]


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
