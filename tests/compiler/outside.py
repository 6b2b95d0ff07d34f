"""Faults that no small mapping leads to: a checkpoint, a folder, a template or a broken lowering does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ckptc.compiler.algebra.lower import Lowered, lower
from ckptc.compiler.algebra.pieces import AT, COPY, Loop, Piece
from ckptc.compiler.algebra.prove import prove
from ckptc.compiler.fit import fit_source
from ckptc.compiler.identify.match import Found
from ckptc.compiler.link.link import link
from ckptc.compiler.settle.resolve import Side, resolve
from ckptc.compiler.settle.sizes import bind_sizes
from ckptc.compiler.settle.write_config import config_text
from ckptc.dsl.diagnostic import Diagnostic, MappingError
from ckptc.dsl.parsing.parse import parse
from ckptc.library import mapping_files as library

TEXT = """model m { axes { layer a b }  x [layer, a, b] }
layout one of m (rank tp = 1) {
  config "config.json" template "config.json.j2" { layer = .layers  a = .rows  b = .columns }
  files "rank_{tp}.pt"
  "x.{layer}" = x [a, copies(2), copies(3), b/tp]
}
"""


def raised(act: Callable[[], object]) -> tuple[Diagnostic, ...]:
    try:
        act()
    except MappingError as error:
        return error.diagnostics
    return ()


def side() -> Side:
    (family,) = link([parse(TEXT, "x.ckmap")])
    sizes = bind_sizes(family, None, None, {"layer": 3, "a": 4, "b": 10}, lambda _: True)
    return resolve(family, "one", sizes, {"tp": 2})


def broken(change: Callable[[tuple[Piece, ...]], tuple[Piece, ...]]) -> tuple[Diagnostic, ...]:
    """What the proof says of a lowering that is wrong."""
    whole = side()
    (item,) = lower(whole)
    wrong: tuple[Lowered, ...] = (replace(item, pieces=change(item.pieces)),)
    return raised(lambda: prove(whole, wrong))


def at(piece: Piece, slot: int, by: int) -> Piece:
    base = list(piece.base)
    base[slot] += by
    return replace(piece, base=tuple(base))


def looped(piece: Piece, pick: Callable[[Loop], bool], change: Callable[[Loop], Loop]) -> Piece:
    return replace(piece, loops=tuple(change(x) if pick(x) else x for x in piece.loops))


def _copies(loop: Loop) -> bool:
    return bool(loop.move[COPY])


def _along_a(loop: Loop) -> bool:
    return loop.axis == "a"


def _template(text: str) -> tuple[Diagnostic, ...]:
    whole = side()
    (family,) = link([parse(TEXT, "x.ckmap")])
    block = family.layout("one").config
    assert block is not None
    return raised(lambda: config_text(block, whole, text))


def _degrees(_: Path) -> tuple[Diagnostic, ...]:
    (family,) = link([parse(TEXT, "x.ckmap")])
    found = [Found(f"rank_{tp}.pt", f"x.{i}", "f32", (4, 2, 3, 5)) for tp in range(2) for i in range(3)]
    return raised(lambda: fit_source(family, family.layout("one"), side().sizes, found, {"tp": 4}))


def _copies_said_wrong(_: Path) -> tuple[Diagnostic, ...]:
    text = 'model m { axes { a b }  x [a, b] }  layout one of m (rank tp = 1, times = 1) { files "rank_{tp}.pt"  "x" = x [(copies(times) a)/tp, b] }'
    (family,) = link([parse(text, "x.ckmap")])
    sizes = bind_sizes(family, None, None, {"a": 4, "b": 3}, lambda _: True)
    found = [Found(f"rank_{tp}.pt", "x", "f32", (4, 3)) for tp in range(2)]
    return raised(lambda: fit_source(family, family.layout("one"), sizes, found, {"times": 1}))


def _either_rank(_: Path) -> tuple[Diagnostic, ...]:
    """Files whose numbers may be of either rank, and hold nothing that stands on one stage alone."""
    text = '''model m { axes { layer a }  x [layer, a]  y [a] }
    layout one of m (rank pp = 1, rank ep = 1) {
      files "rank_{pp:03}.pt" when pp > 1, "rank_{ep:03}.pt"
      stages layer over pp
      "x.{layer/pp}" = x [a]
      "y" = y [a]  on last
    }'''
    (family,) = link([parse(text, "x.ckmap")])
    sizes = bind_sizes(family, None, None, {"layer": 2, "a": 3}, lambda _: True)
    return raised(lambda: fit_source(family, family.layout("one"), sizes, [Found(f"rank_00{i}.pt", "x.0", "f32", (3,)) for i in range(2)], {}))


def _mapping(text: bytes) -> Callable[[Path], tuple[Diagnostic, ...]]:
    def act(folder: Path) -> tuple[Diagnostic, ...]:
        path = folder / "x.ckmap"
        path.write_bytes(text)
        return raised(lambda: library.load([path]))

    return act


def _folder_as_mapping(folder: Path) -> tuple[Diagnostic, ...]:
    (folder / "x.ckmap").mkdir()
    return raised(lambda: library.load([folder / "x.ckmap"]))


def _without_template(_: Path) -> tuple[Diagnostic, ...]:
    (family,) = link([parse(TEXT, "x.ckmap")])
    block = family.layout("one").config
    assert block is not None
    return raised(lambda: library.read_template(block))


OUTSIDE: dict[str, Callable[[Path], tuple[Diagnostic, ...]]] = {
    "bad-template": lambda _: _template("{{ nothing }}"),
    "bad-template-text": lambda _: _template("[1, 2"),
    "degree-disagrees": _degrees,
    "setting-disagrees": _copies_said_wrong,
    "ambiguous-ranks": _either_rank,
    "stored-outside": lambda _: broken(lambda pieces: (at(pieces[0], AT, 1), *pieces[1:])),
    "copy-overlaps": lambda _: broken(lambda pieces: _overlapping_copy(pieces[0])),
    "copies-unequal": lambda _: broken(lambda pieces: _uneven_copy(pieces[0])),
    "no-template": _without_template,
    "stored-gap": lambda _: broken(lambda pieces: (looped(pieces[0], _along_a, lambda x: replace(x, extent=3)),)),
    "stored-twice": lambda _: broken(lambda pieces: (pieces[0], pieces[0])),
    "copies-numbered-twice": lambda _: broken(lambda pieces: (_copied_twice(pieces[0]),)),
    "model-outside": lambda _: broken(lambda pieces: _strange_copy(pieces[0])),
    "outside-mapping": _mapping(b'use "../other.ckmap"'),
    "no-mapping": _mapping(b'use "nothing.ckmap"'),
    "not-text": _mapping(b"\xff\xfe"),
    "unreadable-mapping": _folder_as_mapping,
}


def _copied_twice(piece: Piece) -> Piece:
    """Two loops of copies that number alike."""
    return looped(piece, _copies, lambda x: replace(x, move=(x.move[AT], 1, *x.move[2:])))


def _strange_copy(piece: Piece) -> tuple[Piece, ...]:
    """The second copy holds what lies behind the tensor."""
    loop = next(x for x in piece.loops if x.extent == 2 and _copies(x))
    rest = tuple(x for x in piece.loops if x is not loop)
    first = replace(piece, loops=rest)
    base = tuple(a + b for a, b in zip(piece.base, loop.move, strict=True))
    return first, replace(piece, base=base, loops=rest, first=tuple((a, i + (a == "layer")) for a, i in piece.first))


def _uneven_copy(piece: Piece) -> tuple[Piece, ...]:
    """The second copy holds row 0 again where it should hold row 3."""
    first, second = _strange_copy(piece)
    second = replace(second, first=first.first)
    (loop,) = [x for x in second.loops if _along_a(x)]
    rest = tuple(x for x in second.loops if not _along_a(x))
    last = replace(second, loops=rest, base=tuple(b + 3 * m for b, m in zip(second.base, loop.move, strict=True)))
    return first, looped(second, _along_a, lambda x: replace(x, extent=3)), last


def _overlapping_copy(piece: Piece) -> tuple[Piece, ...]:
    """The second copy holds row 1 where it should hold 2 and 3."""
    first, second = _strange_copy(piece)
    second = replace(second, first=first.first)
    half = looped(second, _along_a, lambda x: replace(x, extent=2))
    (loop,) = [x for x in second.loops if _along_a(x)]
    again = Loop(2, "a", 1, tuple(2 * m for m in loop.move))
    return first, replace(half, loops=(again, *half.loops))
