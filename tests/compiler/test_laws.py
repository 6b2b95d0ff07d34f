"""Laws of the compiler's passes, on made mappings: there and back is identity, passes keep meaning, broken is refused."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptc.compiler.algebra.compose import Move, compose
from ckptc.compiler.algebra.lower import Lowered, lower
from ckptc.compiler.algebra.pieces import AT, COORDS, Piece
from ckptc.compiler.algebra.prove import prove
from ckptc.compiler.pipeline import compile_sides
from ckptc.dsl.diagnostic import MappingError

from .case import Case, compile_case
from .made import Made, mappings
from .reference import contents
from .slow_plan import run_slowly
from .test_algebra import sides


@settings(max_examples=100, deadline=None)
@given(mappings())
def test_there_and_back_is_identity(made: Made) -> None:
    source, target = sides(made)
    have = {k: values for k, (_, values) in contents(source).items()}
    there = run_slowly(compile_sides(source, target).plan, have)
    assert run_slowly(compile_sides(target, source).plan, there) == have


def run_moves(moves: tuple[Move, ...], left: tuple[Lowered, ...], right: tuple[Lowered, ...], source: dict) -> dict:
    """What moves mean, one element at a time."""
    out: dict[tuple[str, str], dict[int, object]] = {}
    for move in moves:
        for index in product(*(range(n) for n, _, _ in move.loops)):
            here, there = list(move.at_source), list(move.at_target)
            for i, (_, a, b) in zip(index, move.loops, strict=True):
                here = [x + i * y for x, y in zip(here, a or [0] * len(here), strict=True)]
                there = [x + i * y for x, y in zip(there, b, strict=True)]
            held = source[_key(left[move.source], here)][here[AT]] if move.source is not None else None
            tensor = out.setdefault(_key(right[move.target], there), {})
            assert there[AT] not in tensor
            tensor[there[AT]] = held
    return {key: [tensor[i] for i in range(len(tensor))] for key, tensor in out.items()}


def _key(item: Lowered, place: list[int]) -> tuple[str, str]:
    at = dict(zip(item.stored.coords, place[COORDS:], strict=True))
    return item.stored.file.format(**at), item.stored.name.format(**at)


@settings(max_examples=100, deadline=None)
@given(mappings())
def test_optimised_steps_mean_what_the_moves_meant(made: Made) -> None:
    source, target = sides(made)
    left, right = lower(source), lower(target)
    have = {k: values for k, (_, values) in contents(source).items()}
    assert run_moves(compose(left, right), left, right, have) == run_slowly(compile_sides(source, target).plan, have)


def _shifted(piece: Piece, slot: int, by: int) -> Piece:
    base = list(piece.base)
    base[slot] += by
    return replace(piece, base=tuple(base))


def _moved_index(piece: Piece, by: int) -> Piece | None:
    """Padding may repeat what it likes."""
    if piece.tensor is None or piece.padding or not piece.first:
        return None
    (axis, i), *rest = piece.first
    return replace(piece, first=((axis, i + by), *rest))


def _shortened(piece: Piece) -> Piece | None:
    if not piece.loops:
        return None
    loop, *rest = piece.loops
    return replace(piece, loops=(replace(loop, extent=loop.extent - 1), *rest))


BREAKS = {
    "dropped": lambda piece: (),
    "twice": lambda piece: (piece, piece),
    "offset + 1": lambda piece: (_shifted(piece, AT, 1),),
    "offset - 1": lambda piece: (_shifted(piece, AT, -1),),
    "next coordinate": lambda piece: (_shifted(piece, COORDS, 1),),
    "coordinate before": lambda piece: (_shifted(piece, len(piece.base) - 1, -1),),
    "next index": lambda piece: (_moved_index(piece, 1),),
    "index before": lambda piece: (_moved_index(piece, -1),),
    "one fewer": lambda piece: (_shortened(piece),),
}


@pytest.mark.parametrize("name", BREAKS)
def test_the_proof_refuses_a_broken_lowering(name: str) -> None:
    @settings(max_examples=40, deadline=None)
    @given(mappings(), st.randoms(use_true_random=False))
    def refuses(made: Made, random) -> None:
        side = sides(made)[0]
        lowered = list(lower(side))
        at = random.randrange(len(lowered))
        pieces = list(lowered[at].pieces)
        which = random.randrange(len(pieces))
        broken = BREAKS[name](pieces[which])
        if None in broken:
            return
        lowered[at] = replace(lowered[at], pieces=(*pieces[:which], *broken, *pieces[which + 1 :]))
        with pytest.raises(MappingError):
            prove(side, tuple(lowered))

    refuses()


@pytest.mark.parametrize("by", [1, 2, -1])
def test_the_proof_refuses_an_index_at_which_the_tensor_is_not(by: int) -> None:
    """As many elements as there should be, at other layers."""
    mapping = """# set: layer=5 a=3
model m { axes { layer a }  settings { kept[layer] = layer == 1 or layer == 2 }  x [layer, a]  when kept }
layout one of m { "{layer}.x" = x [a] }
"""
    side = compile_case(Case("", mapping)).source
    (item,) = lower(side)
    prove(side, (item,))
    broken = tuple(replace(p, first=tuple((axis, i + by if axis == "layer" else i) for axis, i in p.first)) for p in item.pieces)
    with pytest.raises(MappingError, match="holds what `x` does not have"):
        prove(side, (replace(item, pieces=broken),))
