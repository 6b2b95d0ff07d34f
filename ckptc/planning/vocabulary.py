"""Two sides of a change of degrees in; what there is to say of rows of the vocabulary that may be padding, out."""

from __future__ import annotations

from collections.abc import Sequence

from ..compiler.settle.resolve import Side
from ..compiler.values.scope import whole_number
from ..dsl.tree import AxisRef, Pad
from ..runtime.files.window import SideFile

AXIS = "vocab"


def say_padding_stays(source: Side, target: Side, beside: Sequence[SideFile]) -> tuple[str, ...]:
    """A note where all rows of the source become rows of the target and some may be its padding: whoever loads the target
    counts its tokens, pads them for the target's degrees, and may come to fewer rows."""
    rows, before, after = source.sizes.values.get(AXIS), unit_of(source), unit_of(target)
    if source.layout != target.layout or not isinstance(rows, int) or before is None or after is None:
        return ()
    if source.sizes.origins.get(AXIS, "").startswith("--set"):
        return ()
    least = max(rows - before + 1, 1)
    if rows % before or padded(least, after) == padded(rows, after):
        return ()
    kept = f"all {rows:,} rows of the vocabulary are kept, though up to {rows - least:,} of them may be padding: "
    from .tokenizer_size import count_tokens

    counted = count_tokens(beside)
    if counted is None:
        return (f"{kept}how many tokens there are is not known (say it with --set {AXIS}=N)",)
    tokens, name = counted
    if not least <= tokens <= rows:
        return (f"{kept}{name} has {tokens:,} tokens, which do not give that many rows (say how many with --set {AXIS}=N)",)
    return (f"{kept}{name} has {tokens:,} tokens (--set {AXIS}={tokens} drops the rows above)",) if tokens < rows else ()


def unit_of(side: Side) -> int | None:
    """What a layout fills the vocabulary up to a multiple of; None where it does not, or to a number that is given."""
    for value in side.lets.values():
        if isinstance(value, Pad) and value.operand == AxisRef(AXIS) and not value.exact:
            return whole_number(value.amount, side.scope, "what the vocabulary is padded to")
    return None


def padded(tokens: int, unit: int) -> int:
    return -(-tokens // unit) * unit
