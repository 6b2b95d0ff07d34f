"""A plan: what a compiled conversion is. Frozen data that the compiler makes and the engine runs.

Everything is a loop: a `Stored` is a family of equally shaped tensors whose names and files are
patterns over coordinates (ranks, layers, experts); a `Step` copies one affine box of elements from one
family to another, for every value of its instance loops. All offsets and strides are in elements of
the row-major stored tensor; dtypes, and so bytes, are known once a plan is bound to a checkpoint.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

VERSION = 1
Scalar: TypeAlias = int | float | str | bool | None
Coords: TypeAlias = tuple[int, ...]
# What calculates tensors that no file holds, and how many numbers each function takes.
FUNCTIONS = {"rope": 1}


@dataclass(frozen=True)
class Box:
    """The coordinates `first + sum(i_k * strides_k)` for all 0 <= i_k < extent_k."""

    first: Coords
    loops: tuple[tuple[int, Coords], ...] = ()


@dataclass(frozen=True)
class Stored:
    """A family of stored tensors. `name` and `file` are `str.format` patterns over `coords`, such as
    `model.layers.{layer}.mlp.up_proj.weight` and `model/dp_rank_00_tp_rank_{tp:02}_pp_rank_{pp:02}.pt`;
    an empty `file` leaves the choice of file to the format. `boxes` are the coordinates that exist, each
    once. `dtype` is set where the mapping fixes it. Within a file, tensors are ordered by
    (`block`, the coordinates that are spelled in the name, position in `Side.stored`)."""

    name: str
    file: str
    coords: tuple[str, ...]
    boxes: tuple[Box, ...]
    shape: tuple[int, ...]
    block: int = 0
    dtype: str | None = None
    others: tuple[str, ...] = ()  # alternative spellings of `name` that a source may use
    optional: bool = False  # a source may lack it (it is then neither read nor checked)
    origin: str = ""  # file:line of the rule
    other_files: tuple[str, ...] = ()  # alternative spellings of `file` that a source may use
    shared: tuple[str, ...] = ()  # coordinates along which all but the first are copies that may be left out
    buffer: bool = False  # no weight, such as rotary frequencies: `Plan.dtype` does not cast it


@dataclass(frozen=True)
class Over:
    """An instance loop of a step: how each side's coordinates and element offset advance."""

    extent: int
    source: Coords
    target: Coords
    source_at: int = 0
    target_at: int = 0


@dataclass(frozen=True)
class Loop:
    """An element loop of a step: strides in elements on both sides."""

    extent: int
    source: int
    target: int


@dataclass(frozen=True)
class Step:
    """Copies `product(extents)` elements per instance: target[target_at + ...] = source[source_at + ...] * scale + shift.

    `source` is None for a fill with zero. `loops` are outermost first (largest target stride first) and
    coalesced; no loop has extent one; an empty tuple means one element. `kernel` is the class of the copy:
    "range" (one contiguous run on both sides), "rows" (contiguous runs, strided), "transpose" (the
    innermost loop is not contiguous on both sides) or "fill".
    """

    source: int | None
    target: int
    source_first: Coords
    target_first: Coords
    over: tuple[Over, ...]
    source_at: int
    target_at: int
    loops: tuple[Loop, ...]
    kernel: str
    scale: float = 1.0
    shift: float = 0.0
    origin: str = ""


@dataclass(frozen=True)
class Made:
    """A small source tensor that no file holds: its elements, row-major, are `function(*args)`, in float32.

    With `steps` it is worked out from a tensor that files hold, in that one's dtype: they bring `rows` tensors of its
    shape together, one after the other, and the function makes one of them.
    """

    name: str
    shape: tuple[int, ...]
    function: str
    args: tuple[float, ...]
    steps: tuple[Step, ...] = ()
    rows: int = 0

    @property
    def whole(self) -> Stored:
        """What the steps bring together."""
        return Stored("rows", "rows.pt", (), (Box(()),), (self.rows, *self.shape))


def made_name(tensor: str) -> str:
    """What a made tensor is called among the source's stored ones."""
    return f"made:{tensor}"


@dataclass(frozen=True)
class Proof:
    """What was proved of one layout, in elements. `stored` = `model` * declared copies + `padding`, exactly."""

    tensors: int  # stored tensors, all ranks
    model: int  # elements of the model tensors that this layout holds, each counted once
    copies: int  # further copies of those that are declared
    padding: int
    stored: int


@dataclass(frozen=True)
class Side:
    """One layout with its settings: what a checkpoint of it holds. `ignored` are name patterns (holes match
    digits) that a source may hold and that are dropped on purpose; `carry` are globs of side files. `objects` are name
    patterns of what a target of a distributed format holds besides tensors, each with the first number and the extent of
    its holes: `layers[{layer}].fc1._extra_state`, (("layer", 0, 4),). `bare` are files of ranks that hold no tensor at all,
    as those of a stage without layers between two others."""

    layout: str
    format: str
    ranks: tuple[tuple[str, int], ...]
    params: tuple[tuple[str, Scalar], ...]
    stored: tuple[Stored, ...]
    proof: Proof
    ignored: tuple[str, ...] = ()
    carry: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()  # parameters that are not at their defaults
    omitted: tuple[str, ...] = ()  # tensors of the model that the layout leaves out on purpose
    objects: tuple[tuple[str, tuple[tuple[str, int, int], ...]], ...] = ()
    bare: tuple[str, ...] = ()
    met: tuple[tuple[str, int], ...] = ()  # of `ignored`, those that the checkpoint has that the plan was made for: how many


@dataclass(frozen=True)
class Plan:
    """`steps` fill every target tensor exactly once. `checks` are steps whose both ends index
    `source.stored`: declared copies that must be equal in the checkpoint that is read. `files` are texts
    to write beside the tensors (configs). `dtype` casts every floating tensor without a dtype of its own, but for buffers."""

    mapping: str
    source: Side
    target: Side
    steps: tuple[Step, ...]
    checks: tuple[Step, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    dtype: str | None = None
    axes: tuple[tuple[str, int], ...] = ()
    made: tuple[Made, ...] = ()  # tensors of `source.stored` that are calculated
    version: int = field(default=VERSION)
