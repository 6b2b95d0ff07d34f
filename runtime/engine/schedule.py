"""A bound plan and a budget in, tasks out: which chunks are computed together, in the order they are written."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np

from ..binding.bind import Bound, bundles
from ..fault import Fault
from ..files.gather import SCRATCH_BYTES, Gather, place_of, place_of_range
from ..files.window import ITEM_BYTES, Window, row_major
from ..kernels.boxes import BoxT, elements, onto_strides, source_span
from ..kernels.kernels import scratch_bytes
from .chunk import ALIGN, Class, Recipe, Way

CHUNK_BYTES = 2 << 20  # what is read, transformed, summed up and written while it is in a core's own cache
ARENA_BYTES = 1 << 20
PIECE_BYTES = 256 << 10  # a chunk is larger where less than this would go to each of many files,
SPREAD_BYTES = 8 << 20  # up to here
GROWN_BYTES = 32 << 20  # and where it would read much more than it needs, up to here


@dataclass(frozen=True)
class Budget:
    """One worker's bytes: target parts, source arena, what casts work in, and what tiles are gathered in."""

    chunk: int
    most: int  # the largest chunk that sparse reads may ask for
    arena: int
    scratch: int
    gather: int = 0


@dataclass(frozen=True)
class Job:
    """A recipe with its places: (path or tiles, byte offset) of every slot, target numbers of every class."""

    recipe: Recipe
    slots: tuple[tuple[str | Gather, int], ...]
    members: tuple[tuple[int, ...], ...]

    @property
    def single(self) -> bool:
        """Whether each class goes to one place."""
        return all(len(members) == 1 for members in self.members)


@dataclass(frozen=True)
class Task:
    """Chunks that are computed and then written together: (job, chunk number, offset in the worker's buffer)."""

    items: tuple[tuple[Job, int, int], ...]


class Tasks(Sequence[Task]):
    """The tasks of a run, made when they are asked for: a long job is here once, not once for each of its chunks."""

    def __init__(self, parts: Sequence[Task | Job]) -> None:
        self._parts = parts
        self._firsts = [0]
        for part in parts:
            self._firsts.append(self._firsts[-1] + (part.recipe.chunks if isinstance(part, Job) else 1))

    def __len__(self) -> int:
        return self._firsts[-1]

    @overload
    def __getitem__(self, number: int) -> Task: ...
    @overload
    def __getitem__(self, number: slice) -> list[Task]: ...
    def __getitem__(self, number: int | slice) -> Task | list[Task]:
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        if not 0 <= number < len(self):
            raise IndexError(number)
        k = bisect_right(self._firsts, number) - 1
        part = self._parts[k]
        return Task(((part, number - self._firsts[k], 0),)) if isinstance(part, Job) else part


@dataclass(frozen=True)
class Schedule:
    tasks: Sequence[Task]
    budget: Budget
    chunk_bytes: int  # of the largest task
    arena_bytes: int

    @property
    def buffer_bytes(self) -> int:
        """Of one worker."""
        return self.chunk_bytes + self.arena_bytes + self.budget.scratch + self.budget.gather


def budget(memory: int, workers: int, scratch: int, tiled: bool = False) -> Budget:
    """Splits the memory of one worker. `tiled`: tensors that lie in tiles, or are decoded, are read."""
    share = memory // max(1, workers)
    if share < 64 + scratch:
        raise Fault(
            "memory-too-small",
            f"{memory:,} bytes of memory are too few for {workers} workers",
            help=f"use --memory {max(1, (64 + scratch) * workers // 1024 + 1)}KiB or more",
        )
    gather = min(SCRATCH_BYTES, (share - scratch) // 8) if tiled else 0
    arena = min(ARENA_BYTES, (share - scratch - gather) // 4)
    most = share - scratch - gather - arena
    return Budget(min(CHUNK_BYTES, most), most, arena, scratch, gather)


class Recipes:
    """Makes jobs; jobs of equal form share one recipe."""

    def __init__(self, bound: Bound, budget: Budget) -> None:
        self.bound, self.budget = bound, budget
        self._known: dict[Any, Recipe] = {}
        self._boxes: dict[Any, list[BoxT]] = {}
        self._loops = [
            tuple((loop.extent, loop.source, loop.target) for loop in step.loops) for step in bound.plan.steps
        ]
        self._spans = [source_span(loops) for loops in self._loops]
        moves = bound.moves
        self._rows = list(
            zip(moves.step.tolist(), moves.source.tolist(), moves.source_at.tolist(), moves.target_at.tolist(),
                strict=True)
        )  # fmt: skip

    def rows(self, target: int) -> list[tuple[int, int, int, int]]:
        """(step, source, source offset, target offset) of every copy into a target."""
        tensor = self.bound.tensors[target]
        return self._rows[tensor.start : tensor.end]

    def job(self, targets: list[int]) -> Job:
        """One job for targets that read the same sources."""
        rows = [self.rows(target) for target in targets]
        firsts: dict[int, int] = {}
        ends: dict[int, int] = {}
        for group in rows:
            for step, source, source_at, _ in group:
                if source >= 0:
                    at = firsts.get(source)
                    firsts[source] = source_at if at is None or source_at < at else at
                    ends[source] = max(ends.get(source, 0), source_at + self._spans[step])
        slots: dict[int, int] = {}
        places: list[tuple[str | Gather, int]] = []
        forms: list[tuple[Any, ...]] = []
        windows = self.bound.windows
        for source in firsts:
            window = windows[source]
            assert window is not None
            item = ITEM_BYTES[window.dtype]
            slots[source] = len(places)
            if window.composed and window.strides == row_major(window.shape):
                places.append(place_of_range(window, firsts[source], ends[source] - firsts[source], self.budget.gather))
                forms.append((window.dtype, item))
            elif window.strides == row_major(window.shape):
                places.append((window.path, window.at + firsts[source] * item))
                forms.append((window.dtype, item))
            else:
                firsts[source] = 0
                places.append(place_of(window, self.budget.gather))
                forms.append((window.dtype, item, window))
        kinds: dict[Any, list[int]] = {}
        for target, group in zip(targets, rows, strict=True):
            tensor = self.bound.tensors[target]
            form = tuple(
                (step, slots.get(source, -1), source_at - firsts.get(source, source_at), target_at)
                for step, source, source_at, target_at in group
            )
            kinds.setdefault((tensor.family, tensor.dtype, form), []).append(target)
        shape = tuple(f if len(f) == 2 else (*f[:2], f[2].shape, f[2].strides) for f in forms)
        recipe = self._recipe((shape, tuple(kinds)), [f[2] if len(f) > 2 else None for f in forms])
        return Job(recipe, tuple(places), tuple(tuple(members) for members in kinds.values()))

    def _recipe(self, key: Any, odd: list[Window | None]) -> Recipe:
        recipe = self._known.get(key)
        if recipe is None:
            forms, kinds = key
            classes = tuple(self._class(family, dtype, rows, odd) for family, dtype, rows in kinds)
            recipe = cut(classes, tuple((f[0], f[1]) for f in forms), self.budget)
            self._known[key] = recipe
        return recipe

    def _class(self, family: int, dtype: str, rows: Any, odd: list[Window | None]) -> Class:
        ways: list[Way] = []
        for step_number, slot, source_at, target_at in rows:
            step = self.bound.plan.steps[step_number]
            box = (source_at, target_at, self._loops[step_number])
            window = odd[slot] if slot >= 0 else None
            for piece in [box] if window is None else onto_strides(box, window.shape, window.strides):
                ways.append(Way(slot, piece, step_number, step.scale, step.shift))
        return Class(self.bound.targets[family].elements, dtype, ITEM_BYTES[dtype], tuple(ways))


def cut(classes: tuple[Class, ...], slots: tuple[tuple[str, int], ...], budget: Budget) -> Recipe:
    """A recipe within the budget; chunks that would read much more than they need are made larger."""
    size = min(max(budget.chunk, min(PIECE_BYTES * len(classes), SPREAD_BYTES)), budget.most)
    recipe = Recipe(classes, slots, size, budget.arena)
    grown = min(budget.most, max(size, GROWN_BYTES))
    while recipe.buffer_bytes <= size and recipe.chunks > 1 and size < grown:
        middle = recipe.piece(recipe.chunks // 2)
        if middle.read_bytes * 2 <= middle.needed_bytes * 3:
            break
        size = min(size * 2, grown)
        recipe.cut(size)
    if recipe.buffer_bytes > size and not recipe.cut(budget.most):
        raise Fault(
            "memory-too-small",
            f"one element of each of {len(classes)} tensors does not fit {budget.most:,} bytes",
            help="use more --memory or fewer --workers",
        )
    return recipe


def connected(bundle: list[int], recipes: Recipes) -> list[list[int]]:
    """Targets of a bundle grouped by shared sources."""
    if len(bundle) == 1:
        return [bundle]
    groups: list[list[int]] = []
    owner: dict[int, list[int]] = {}
    for target in bundle:
        sources = {row[1] for row in recipes.rows(target) if row[1] >= 0}
        met: list[list[int]] = []
        for source in sources:
            group = owner.get(source)
            if group is not None and not any(group is other for other in met):
                met.append(group)
        home = met[0] if met else []
        if not met:
            groups.append(home)
        for other in met[1:]:
            home.extend(other)
            groups = [group for group in groups if group is not other]
            for source, group in owner.items():
                if group is other:
                    owner[source] = home
        home.append(target)
        for source in sources:
            owner[source] = home
    return groups


def jobs(bound: Bound, recipes: Recipes, order: list[int]) -> Iterator[Job]:
    for bundle in bundles(bound, order):
        for group in connected(bundle, recipes):
            yield recipes.job(group)


def schedule(bound: Bound, memory: int, workers: int) -> Schedule:
    """The tasks of a run. Consecutive small jobs share a task."""
    limits = budget(memory, workers, scratch(bound), tiled(bound))
    parts: list[Task | Job] = []
    items: list[tuple[Job, int, int]] = []
    filled = largest = arena = 0
    for job in jobs(bound, Recipes(bound, limits), bound.written):
        recipe = job.recipe
        if items and (filled + recipe.buffer_bytes > limits.chunk or len(items) >= 256 or recipe.chunks > 1):
            parts.append(Task(tuple(items)))
            items, filled = [], 0
        if recipe.chunks > 1:
            parts.append(job)
            largest = max(largest, recipe.buffer_bytes)
        elif recipe.chunks:
            items.append((job, 0, filled))
            filled += -(-recipe.buffer_bytes // ALIGN) * ALIGN
            largest = max(largest, filled)
        arena = max(arena, min(limits.arena, chunk_arena(recipe)))
    if items:
        parts.append(Task(tuple(items)))
    return Schedule(Tasks(parts), limits, largest, arena)


def chunk_arena(recipe: Recipe) -> int:
    """The bytes of sources that its chunks hold at once, at most."""
    return recipe.arena_bytes if recipe.chunks > 1 else max((slab.nbytes for slab in recipe.piece(0).slabs), default=0)


def scratch(bound: Bound) -> int:
    """The bytes that the casts of this plan work in."""
    steps = bound.plan.steps
    affine = any(step.scale != 1.0 or step.shift != 0.0 for step in steps)
    sources = {window.dtype for window in bound.windows if window is not None}
    targets = {tensor.dtype for tensor in bound.tensors}
    return max((scratch_bytes(a, b, affine) for a in sources for b in targets if affine or a != b), default=0)


def reworked_bytes(bound: Bound) -> int:
    """The bytes of the target that are turned or cast: what is more than a copy of rows."""
    steps = bound.plan.steps
    if scratch(bound):
        return bound.bytes_written
    turns = [elements(tuple((x.extent, x.source, x.target) for x in step.loops)) if step.kernel == "transpose" else 0 for step in steps]
    items = max((ITEM_BYTES[tensor.dtype] for tensor in bound.tensors), default=0)
    runs: list[int] = np.bincount(bound.moves.step, minlength=len(steps)).tolist()
    return items * sum(n * turns[k] for k, n in enumerate(runs))


def tiled(bound: Bound) -> bool:
    """Whether a plan reads tensors that lie in tiles, or are decoded."""
    return any(window is not None and window.composed for window in bound.windows)


def peak_buffer_bytes(bound: Bound, memory: int = 512 << 20, workers: int = 2) -> int:
    """The bytes of buffers that `run` allocates with these settings; never above `memory`."""
    return schedule(bound, memory, workers).buffer_bytes * workers
