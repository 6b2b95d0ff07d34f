"""The mappings in, docs/families.md out: which family each framework's layouts hold, and why not where they do not.

`python -m ckptc.library.families_page docs` writes it; a test holds it to the mappings.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from ..compiler.check.check_files import formats_of
from ..compiler.identify.by_default import tensors_by_default
from ..compiler.identify.match import tensors_of
from ..compiler.link.flat import Family, FlatLayout
from ..compiler.values.scope import Scope, evaluate
from ..dsl.diagnostic import MappingError
from . import mapping_files as library
from .families import listed

NAME = "families.md"
DECODER = "mappings/decoder.ckmap"  # whose settings any family's config may change
HEAD = """# Families

This page is made from the mappings by `python -m ckptc.library.families_page docs`. A row is a family of models, a column a layout.
*yes*: the layout holds the family, in both directions. *read*: such checkpoints are read and not written. A number stands
for the reason below the table. What a single checkpoint's config asks for beside that (a kind of scaling, a bias, layers of
several kinds) is asked when it is converted, and refused by name where the target cannot say it.
"""
KINDS = ("hf", "nxdt", "nxdt-megatron", "nnm", "megatron", "megatron-legacy", "megatron-lm", "nemo", "nemo-dist", "nemo-legacy", "nemo-interleaved", "nemo2")


def page() -> str:
    """The text of the page."""
    families = [f for f in sorted(listed(library.families(None)), key=lambda f: f.name) if any(x.own_config for x in f.layouts)]
    named = {x.name for f in families for x in f.layouts} | {name for f in families for name in f.lacking}
    columns = [name for name in KINDS if name in named] + sorted(named - set(KINDS))
    reasons: dict[str, int] = {}
    rows = [[f"`{f.name}`", *(_cell(f, name, reasons) for name in columns)] for f in families]
    head = ["family", *(f"`{name}`" for name in columns)]
    notes = [f"{number}. {reason}." for reason, number in reasons.items()]
    return "\n".join([HEAD, _line(head), _line(["---"] * len(head)), *map(_line, rows), "", *notes, ""])


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(family: Family, name: str, reasons: dict[str, int]) -> str:
    layout = next((x for x in family.layouts if x.name == name), None)
    if layout is None and name not in family.lacking:
        return ""
    missing = family.lacking[name] if layout is None else _missing(family, layout)
    why = f"no place for `{missing}`" if missing is not None else _refusal(family, layout) if layout is not None else ""
    if why:
        return str(reasons.setdefault(why, len(reasons) + 1))
    return "read" if layout is not None and formats_of(layout).read_only else "yes"


def _missing(family: Family, layout: FlatLayout) -> str | None:
    """A tensor that a model as the family is by default has, and the layout has no place for."""
    held = {name for flat in layout.rules for name in tensors_of(flat.rule, layout)} | {name for item in layout.omits for name in item.tensors}
    return next((each.name for each in tensors_by_default(family) if layout.rules and each.name not in held), None)


def _refusal(family: Family, layout: FlatLayout) -> str:
    """The words of a requirement that no model of the family meets: by settings that the family has, and no config changes."""
    bound = {entry.name for each in family.layouts if each.name == "hf" and each.config is not None for entry in each.config.entries}
    certain = {x.name: x.value for x in family.model.settings if x.name not in bound and x.span.file != DECODER}
    for item in layout.requires:
        try:
            if item.when is None and not evaluate(item.test, Scope(lazy=certain)):
                return item.message
        except MappingError:  # it asks what this family leaves open
            continue
    return ""


def main() -> None:
    """Writes the page into the folder that is named, `docs` by itself."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    (folder / NAME).write_text(page())


if __name__ == "__main__":
    main()
