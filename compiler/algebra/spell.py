"""A rule's name and the ranks in, loops out: which tensors of a rule exist, and how their names are spelled.

An axis that a name spells moves a coordinate instead of an offset; a rank that no slice binds makes copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...dsl.diagnostic import fault
from ...dsl.tree import Hole, Pattern, Rule
from ...runtime.plan.plan import Box
from ..settle.rank_digits import Digit, degree
from ..settle.resolve import LiveRule, Side
from ..values.pick import runs
from ..values.scope import LARGEST, whole_number
from .digits import added
from .index import RuleState, axis_of, check_divides, digits_of, loops_of, stage_pieces
from .pieces import COORDS, Loop, Piece, moved


def check_names(rule: Rule, side: Side, coords: tuple[str, ...]) -> None:
    """One number per axis: all spellings of a name, and its file, say the same of it."""
    first = _holes(rule.names[0])
    for hole in first.values():
        if hole.axis in side.ranks or hole.axis in side.turns:
            _check_rank_hole(hole)
    for other in rule.names[1:]:
        if _holes(other) != first:
            raise fault(
                "alternative-holes", "the spellings of this name have different holes", other.span, "differs from the first spelling",
                help="a rule of its own, with `optional` on both, reads what is numbered otherwise",
            )  # fmt: skip
    for hole in [h for pattern in side.files for h in _holes(pattern).values()]:
        if hole.axis not in coords:
            raise fault(
                "file-hole", f"the file's name spells `{hole.axis}`, which is neither a rank nor in this rule's name", hole.span,
                notes=(f"the rule at {rule.span.file}:{rule.span.line} does not spell it",), help=f"remove {{{hole.axis}}}, or declare `rank {hole.axis} = 1`",
            )  # fmt: skip
        _check_rank_hole(hole)


def _holes(pattern: Pattern) -> dict[str, Hole]:
    """The holes of a name by axis, widths apart."""
    out: dict[str, Hole] = {}
    for part in pattern.parts:
        if isinstance(part, Hole):
            plain = Hole(part.axis, part.rank, part.offset, 0, part.span)
            if out.setdefault(part.axis, plain) != plain:
                raise fault("two-numbers", f"this name spells `{part.axis}` as two different numbers", part.span, help="spell it in one way")
    return out


def _check_rank_hole(hole: Hole) -> None:
    if hole.rank is not None or hole.offset is not None:
        raise fault("rank-hole", f"`{hole.axis}` is written as it is: it takes no `/` and no offset here", hole.span, help=f"write {{{hole.axis}}}")


def named(hole: Hole, state: RuleState, touched: set[str]) -> list[Piece]:
    """The axis of a hole moves the coordinate that is spelled: its global index, or the rank's local number."""
    side, name = state.side, hole.axis
    offset = 0
    if hole.offset is not None:
        offset = whole_number(hole.offset, side.scope, f"the offset of `{name}`", -LARGEST)
    stages = side.stages
    if stages is not None and name == stages.axis and hole.rank in (None, stages.rank):
        touched.add(stages.rank)
        if stages.interleave in state.coords:
            touched.add(stages.interleave)
        pieces = stage_pieces(state, lambda i, local: {f"_{name}": i if hole.rank is None else local})
    elif name in dict(state.rule.picked):
        if hole.rank is not None:
            raise fault("where-rank", f"`{name}` is divided over `{hole.rank}`, and only some of it is there", hole.span, help="of an axis without stages all indices are divided, or none")
        pieces = [
            Piece("", ((name, first),), state.vector(**{f"_{name}": first}), loops_of(n, name, step, state.vector(**{f"_{name}": step})))
            for first, n, step in runs(dict(state.rule.picked)[name])
        ]
    else:
        axis, extent, step = axis_of(name, hole.span, side)
        if hole.rank is not None:
            digits = digits_of(hole.rank, hole.span, side)
            touched.update(d.name for d in digits)
            check_divides(extent, degree(digits), name, hole.rank, hole.span, side)
            block = extent
            loops: list[Loop] = []
            for digit in digits:
                block //= digit.extent
                loops += loops_of(digit.extent, axis, step * block, state.step(digit))
            loops += loops_of(block, axis, step, state.vector(**{f"_{name}": 1}))
            pieces = [Piece("", ((axis, 0),), state.vector(), tuple(loops))]
        else:
            pieces = [Piece("", ((axis, 0),), state.vector(), loops_of(extent, axis, step, state.vector(**{f"_{name}": 1})))]
    slot = state.slot(name)
    pieces = [moved(p, offset, slot) for p in pieces]
    check_spelled(hole, min((p.base[slot] for p in pieces), default=0))
    return pieces


def check_spelled(hole: Hole, least: int) -> None:
    """That the least number which a hole would be spelled as is one."""
    if least < 0:
        title, help = f"`{hole.axis}` would be spelled as {least} here", "spell it from 0, or say by `when` which indices are spelled so"
        raise fault("negative-number", title, hole.span, help=help)


def fixed_ranks(rule: LiveRule, side: Side, touched: set[str]) -> dict[str, int]:
    on = rule.rule.on
    if on is None:
        return {}
    if side.stages is None or side.stages.rank in touched:
        why = "the layout has no stages" if side.stages is None else "the rule already says which stage owns it"
        raise fault("misplaced-on", f"`on {on}` means nothing here: {why}", rule.rule.span, help=f"remove `on {on}`")
    places = {side.stages.rank: side.ranks[side.stages.rank], **side.turns}
    if on == "beyond":
        return dict(zip(places, side.stages.beyond_at, strict=False))
    return {} if on == "all" else {name: 0 if on == "first" else n - 1 for name, n in places.items()}


@dataclass(frozen=True)
class _Ranked:
    """How a rank's coordinate runs: over the tensors that exist, and over the copies of one element."""

    instances: list[Piece]
    copies: list[Piece]


def rank_pieces(digit: Digit, state: RuleState, fixed: Mapping[str, int], touched: set[str], spelled: set[str]) -> _Ranked:
    """`touched` are the digits of ranks that the name or a slice divides something over, `spelled` those of the name."""
    none = [Piece("", (), state.vector(), ())]
    name, n, step = digit.name, digit.extent, state.step(digit)
    if name in fixed:
        at = [Piece("", (), state.vector(**{f"_{name}": fixed[name]}), ())]
        return _Ranked(at, at)
    if name in spelled:
        return _Ranked(none, none)  # a name's stage or expert already runs over it
    stages = state.side.stages
    if stages is not None and name == stages.rank and state.count is not None:
        owners = [r for r, owned in enumerate(stages.owned) if len(owned) == state.count]
        return _Ranked([Piece("", (), state.vector(**{f"_{name}": r}), ()) for r in owners], none)
    every = [Piece("", (), state.vector(), loops_of(n, None, 0, step))]
    if name in touched:
        return _Ranked(every, none)  # a slice gives each element its rank
    weight, state.copies = state.copies, state.copies * n
    replica = Loop(n, None, 0, added(step, state.vector(copy=weight)), replica=True)
    return _Ranked(every, [Piece("", (), state.vector(), (replica,) if n > 1 else ())])


def format_of(pattern: Pattern) -> str:
    """The pattern for `str.format`, by the names of the coordinates."""
    out = []
    for part in pattern.parts:
        if isinstance(part, str):
            out.append(part.replace("{", "{{").replace("}", "}}"))
        else:
            out.append("{" + part.axis + (f":0{part.width}" if part.width else "") + "}")
    return "".join(out)


def box_of(piece: Piece) -> Box:
    return Box(piece.base[COORDS:], tuple((x.extent, x.move[COORDS:]) for x in piece.loops if x.extent > 1))
