"""Expressions and the names known where they stand in, faults about what they name out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from ...dsl.diagnostic import Diagnostic, Label
from ...dsl.nearest import did_you_mean
from ...dsl.tree import (
    FILLS,
    AxisRef,
    Call,
    Copies,
    Expr,
    Hole,
    Index,
    Model,
    Pad,
    Ref,
    Refine,
    Select,
    Slice,
    Span,
)
from ...dsl.walk import walk
from ...runtime.plan.plan import FUNCTIONS as MAKERS
from ..link.flat import FlatLayout
from ..values.pick import faults_of
from ..values.scope import FUNCTIONS, misplaced_keys
from ..values.walk_expr import inside

Set = frozenset[str]
NONE: Set = frozenset()
CALLED: Set = frozenset(FUNCTIONS)
OF_TENSORS: Set = frozenset({"stored", "lacks"})


@dataclass(frozen=True)
class Names:
    """What may be named in a place. `words`: names that are only values. `parts_of`: the axis of each part."""

    axes: Set = NONE
    settings: Set = NONE
    tensors: Set = NONE
    ranks: Set = NONE
    params: Set = NONE
    words: Set = NONE
    lets: Set = NONE
    turns: Set = NONE
    rank_parts: Set = NONE
    parts_of: dict[str, str] = field(default_factory=dict)
    selects: dict[str, Select] = field(default_factory=dict)
    functions: Set = CALLED
    keys: bool = False  # whether keys of a config file may be named

    @property
    def parts(self) -> Set:
        return Set(self.parts_of)

    @property
    def values(self) -> Set:
        return self.axes | self.settings | self.params | self.words | self.parts

    @staticmethod
    def of_model(model: Model) -> Names:
        axes, tensors = Set(a.name for a in model.axes), Set(t.name for t in model.tensors)
        settings = Set(s.name for s in model.settings)
        selects = {s.name: s for s in model.selects}
        return Names(axes, settings, tensors, parts_of=_parts(model.refinements), selects=selects, functions=CALLED | OF_TENSORS)

    @staticmethod
    def of_layout(model: Model, layout: FlatLayout) -> Names:
        of_model = Names.of_model(model)
        refined = (*model.refinements, *layout.refinements)
        ranks = Set(p.name for p in layout.params if p.rank)
        return Names(
            of_model.axes, of_model.settings, of_model.tensors,
            ranks,
            Set(p.name for p in layout.params),
            Set(layout.words),
            Set(x.name for x in layout.lets),
            Set([layout.stages.interleave] if layout.stages is not None and layout.stages.interleave is not None else []),
            Set(part for x in refined if x.axis in ranks for part in x.parts),
            _parts(x for x in refined if x.axis not in ranks),
            of_model.selects,
        )  # fmt: skip

    def whole(self, name: str) -> str:
        """The axis that a part is of, or the name itself."""
        seen: set[str] = set()
        while name in self.parts_of and name not in seen:
            seen.add(name)
            name = self.parts_of[name]
        return name


def _parts(refinements: Iterable[Refine]) -> dict[str, str]:
    return {part: refine.axis for refine in refinements for part in refine.parts}


def unknown(code: str, title: str, name: str, known: Iterable[str], span: Span, otherwise: str) -> Diagnostic:
    """A name of nothing, with the nearest of those that there are."""
    return Diagnostic(code, title, (Label(span),), help=did_you_mean(name, sorted(known), otherwise))


def check_expr(expr: Expr, names: Names) -> Iterator[Diagnostic]:
    """Faults of the names, keys and functions in an expression."""
    yield from () if names.keys else misplaced_keys(expr)
    for node in inside(expr):
        if isinstance(node, Ref) and node.name not in names.values:
            known = "names are axes, settings and the layout's own parameters"
            yield unknown("unknown-name", f"nothing here is called `{node.name}`", node.name, names.values | names.selects.keys(), node.span, known)
        elif isinstance(node, Call) and node.function not in names.functions:
            functions = f"the functions here are {', '.join(sorted(names.functions))}"
            yield unknown("unknown-function", f"there is no function `{node.function}`", node.function, names.functions, node.span, functions)
        elif isinstance(node, Call) and node.function in OF_TENSORS:
            for arg in node.args:
                if isinstance(arg, Ref) and arg.name not in names.tensors:
                    title = f"the model has no tensor `{arg.name}` that could be stored"
                    yield unknown("stored-nothing", title, arg.name, names.tensors, arg.span, "name a tensor of the model")


def check_made(call: Call) -> Iterator[Diagnostic]:
    """That elements are calculated by a function that there is, from as many numbers as it takes."""
    if call.function not in MAKERS:
        known = f"the functions that make elements are {', '.join(MAKERS)}"
        yield unknown("unknown-function", f"no elements are made by `{call.function}`", call.function, MAKERS, call.span, known)
    elif len(call.args) != MAKERS[call.function]:
        wanted = MAKERS[call.function]
        title = f"`{call.function}` takes {wanted} number{'s' * (wanted != 1)}, not {len(call.args)}"
        yield Diagnostic("bad-call", title, (Label(call.span),), help=f"write it as in: made {call.function}(rope_base)")


def check_where(where: Expr | None, names: Names, span: Span) -> Iterator[Diagnostic]:
    """The half of a guard that is about indices: it asks for those of one axis, in names that are known."""
    if where is not None:
        yield from check_expr(where, about_indices(names))
        yield from faults_of(where, names.selects, span)


def about_indices(names: Names) -> Names:
    """What may be named in a condition on indices: also settings that each index has. It is not asked of a checkpoint."""
    return replace(names, settings=names.settings | names.selects.keys(), functions=CALLED)


def check_hole(hole: Hole, names: Names) -> Iterator[Diagnostic]:
    known = names.axes | names.parts | names.ranks | names.turns
    if hole.axis not in known:
        yield unknown("unknown-hole", f"a name cannot spell `{hole.axis}`, which is no axis", hole.axis, known, hole.span, "name an axis, a part of one or a rank")
    if hole.rank is not None:
        yield from _rank(hole.rank, hole.span, names)
    if hole.offset is not None:
        yield from check_expr(hole.offset, names)


def check_index(index: Index, names: Names) -> Iterator[Diagnostic]:
    for node in walk(index):
        match node:
            case AxisRef(name):
                known = names.axes | names.parts | names.lets
                if name not in known:
                    yield unknown("unknown-axis", f"`{name}` is not an axis, a part of one or a `let`", name, known, node.span, "declare it in the model's `axes`")
            case Slice(_, rank):
                yield from _rank(rank, node.span, names)
            case Pad(_, amount, fill=fill):
                yield from check_expr(amount, names)
                if fill not in FILLS and fill not in names.params:
                    title = f"`{fill}` is neither a way to pad nor a parameter that says one"
                    yield unknown("unknown-fill", title, fill, names.params | FILLS, node.span, "pad with `zero`, `repeat last` or `mean`")
            case Copies(count):
                yield from check_expr(count, names)


def _rank(rank: str, span: Span, names: Names) -> Iterator[Diagnostic]:
    if rank not in names.ranks | names.rank_parts:
        yield unknown("unknown-rank", f"`/{rank}`: the layout has no rank `{rank}`", rank, names.ranks | names.rank_parts, span, f"declare it: `rank {rank} = 1`")
