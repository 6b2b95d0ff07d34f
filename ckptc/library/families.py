"""Families in; those to choose from, those to show, or the one of a name, out."""

from __future__ import annotations

from collections.abc import Sequence

from ..compiler.link.flat import Family
from ..dsl.nearest import nearest
from ..runtime.fault import Fault
from .signs import signs_of


def to_choose_from(families: Sequence[Family], name: str | None = None) -> list[Family]:
    """The families that a checkpoint may be of: the one of a `name`, or those that read a config of their own, or all where
    none does. Raises `Fault` where there is none of the name."""
    if name is not None:
        return [family_named(name, families)]
    return [f for f in families if any(signs_of(x).own for x in f.layouts)] or list(families)


def listed(families: Sequence[Family]) -> list[Family]:
    """Those of them that people have checkpoints of. A base, such as `decoder`, only holds what families share: it says of no
    config which model it is of, and families that extend it do."""
    shown = to_choose_from(families)
    say = [f for f in shown if any(signs_of(x).says for x in f.layouts)]
    return [f for f in shown if f in say or not any(f.name in each.ancestors for each in say)]


def layout_named(name: str, known: Sequence[Family]) -> None:
    """Raises `Fault` where no family has a layout of this name."""
    names = sorted({layout.name for family in known for layout in family.layouts})
    if name not in names:
        raise Fault("unknown-layout", f"there is no layout `{name}`", notes=(f"there are {', '.join(names)}",), help=_meant(name, names))


def _meant(name: str, names: Sequence[str]) -> str:
    near = nearest(name, names)
    return f"did you mean `{near}`?" if near else "see `ckptc list`"


def family_named(name: str, known: Sequence[Family], of: str = "") -> Family:
    """The family of this name, the last of several. Raises `Fault` where there is none; `of` names the mapping that should have it."""
    found = [f for f in known if f.name == name]
    if found:
        return found[-1]
    names = sorted({f.name for f in known})
    raise Fault(
        "unknown-family", f"{of} has no family `{name}`" if of else f"there is no family `{name}`", notes=(f"there are {', '.join(names)}",) if names else (),
        help=_meant(name, names),
    )  # fmt: skip
