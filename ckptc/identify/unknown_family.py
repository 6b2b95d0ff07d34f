"""A checkpoint whose config says that it is of a model which no family here is: what it is, and how far the nearest one is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..compiler.algebra.spell import format_of
from ..compiler.identify.by_default import tensors_by_default
from ..compiler.identify.detect import Fit
from ..compiler.identify.match import Found, representatives, stored_tensors, tensors_of
from ..compiler.link.flat import Family, FlatLayout
from ..dsl.tree import Hole, Pattern
from ..runtime.fault import Fault
from .identity import MODEL_TYPE, Identity, Said, families_of, identity_of

HELP = "docs/tutorial.md shows how a mapping is written; pass yours with --mapping"
SHOWN = 6


@dataclass(frozen=True)
class Near:
    """A layout by whose names most of a checkpoint's tensors are called: the names beside them, and those that it lacks."""

    family: Family
    layout: FlatLayout
    beside: tuple[str, ...]
    lacking: tuple[str, ...]
    alike: int  # kinds of names that are the layout's

    @property
    def same(self) -> bool:
        return not self.beside and not self.lacking


def nearest_of(fits: Sequence[Fit], found: Sequence[Found]) -> Near | None:
    """The family whose tensors are most like those found; None where fewer are alike than are not."""
    kinds = len(representatives(found))
    near = [Near(fit.family, fit.layout, fit.missing, _lacking(fit, found), kinds - len(fit.missing)) for fit in fits]
    near = [each for each in near if each.alike > len(each.beside) and each.alike > len(each.lacking)]
    return min(near, key=lambda each: (len(each.beside) + len(each.lacking), *_own_share(each.family), each.family.name), default=None)


def unknown_family(said: Said, known: Sequence[Family], fits: Sequence[Fit], found: Sequence[Found], mapping: object = None) -> Fault:
    """That no family is this model's."""
    near = nearest_of(fits, found)
    title = f"{mapping} has no family for {said.name}" if mapping else f"ckptc has no mapping for {said.name} yet"
    if mapping:
        there = tuple(f"its family `{family.name}` is for {values}" for family in known if (values := _values(family, said)))
        help = f"say in it which {said.key} a family is for, as docs/tutorial.md shows"
    else:
        there = (f"there are {', '.join(sorted(_own(known)))}",)
        help = HELP
    return Fault("unknown-family", title, notes=(f"{said.file} says so", *describe(near, found), *there), help=help)


def other_family(said: Said, family: Family, known: Sequence[Family], fits: Sequence[Fit], found: Sequence[Found]) -> Fault:
    """That the family which was named is not this model's."""
    theirs = [each.name for each in families_of(known, said) if each.name != family.name]
    values = _values(family, said)
    title = f"{said.file} says {said.name}, and family `{family.name}` is for {values}" if values else f"{said.file} says {said.name}, which family `{family.name}` is not for"
    if theirs and len(theirs) < len(known) - 1:
        return Fault("other-family", title, notes=(f"that is {' or '.join(f'`{name}`' for name in sorted(theirs))}",), help=f"--family {sorted(theirs)[0]}, or leave --family out")
    near = nearest_of([fit for fit in fits if fit.family.name == family.name], found)
    unknown = f"ckptc has no mapping for {said.name} yet"
    if near is not None and near.same and values and said.key == MODEL_TYPE:
        help = f"if it computes as {family.name} does, pass a copy of the config that says {values} with --config; else {HELP}"
    else:
        help = HELP
    return Fault("unknown-family", title, notes=(unknown, *describe(near, found)), help=help)


def others_tensors(said: Said, best: Fit, fits: Sequence[Fit], found: Sequence[Found]) -> Fault:
    """That the config is of one family, and all tensors have the names of `best`, which is another."""
    values = _values(best.family, said)
    name = f"`{best.family.name}`" + (f", which is for {values}" if values else "")
    return Fault(
        "other-family", f"{said.file} says {said.name}, and the tensors beside it are those of another family, {name}",
        notes=describe(nearest_of(fits, found), found) if fits else (), help="pass the config that belongs to these tensors with --config",
    )  # fmt: skip


def describe(near: Near | None, found: Sequence[Found]) -> tuple[str, ...]:
    """How far the nearest family is. Nothing where no tensors are at hand."""
    if not found:
        return ()
    if near is None:
        return (f"no family's tensors are like its own, such as {_some(tuple(representatives(found).values())[:2])}",)
    if near.same:
        return (f"its tensors have the names of `{near.family.name}`; whether it computes the same with them, names do not tell",)
    beside = f"it has beside them {_some(near.beside)}" if near.beside else ""
    lacking = f"it lacks {_some(near.lacking)}" if near.lacking else ""
    return (f"its tensors are most like those of `{near.family.name}`; {', and '.join(filter(None, (beside, lacking)))}",)


def _lacking(fit: Fit, found: Sequence[Found]) -> tuple[str, ...]:
    """The names, at index 0, of what a model of the family has as it is by default, and these tensors are not."""
    there = stored_tensors(fit.layout, found)
    omitted = {name for item in fit.layout.omits for name in item.tensors}
    out: dict[str, None] = {}
    for decl in tensors_by_default(fit.family):
        if decl.name in there or decl.name in omitted:
            continue
        rules = [flat.rule for flat in fit.layout.rules if decl.name in tensors_of(flat.rule, fit.layout) and not flat.rule.copy]
        if rules and not any(rule.optional or rule.made for rule in rules):
            out[_at_zero(rules[0].names[0])] = None
    return tuple(out)


def _at_zero(pattern: Pattern) -> str:
    return format_of(pattern).format(**{part.axis: 0 for part in pattern.parts if isinstance(part, Hole)})


def _own_share(family: Family) -> tuple[int, int]:
    """Of families that differ in settings alone, the one that the others extend comes first: it says fewest of its own."""
    return len(family.ancestors), sum(each.span.file == family.model.span.file for each in family.model.settings)


def _own(known: Sequence[Family]) -> list[str]:
    """Families that read a config of their own model."""
    return [family.name for family in known if any((own := identity_of(family, layout)) and own[0] == MODEL_TYPE for layout in family.layouts)]


def _values(family: Family, said: Said) -> str:
    """The values of the key that are the family's, for a sentence."""
    known: list[Identity] = [identity for layout in family.layouts if (identity := identity_of(family, layout))]
    values = sorted({value for key, each in known if key == said.key for value in each})
    quoted = [f'"{value}"' for value in values]
    return f"{said.key} {' or '.join(quoted)}" if values else ""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"`{name}`" for name in names[:SHOWN]) + more
