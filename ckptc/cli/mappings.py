"""`ckptc check`, `fmt`, `list` and `explain`: what mapping files say."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from . import options
from .convert import MappingName, compiled

Files = Annotated[
    list[str], typer.Argument(metavar="FILE...", help="Mapping files, folders of them, or names of those that ship.", show_default=False)
]


def explain(
    mapping: MappingName,
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A stored tensor's name, of either side.", show_default=False)
    ],
    from_: options.FromNamed,
    to: options.To,
    family: options.Family = None,
    config: options.Config = None,
    tp: options.Tp = None,
    pp: options.Pp = None,
    vpp: options.Vpp = None,
    ep: options.Ep = None,
    etp: options.Etp = None,
    set_: options.Set = None,
    from_set: options.FromSet = None,
    stages: options.Stages = None,
    from_stages: options.FromStages = None,
    as_json: options.Json = False,
) -> None:
    """Say where one tensor's elements go or come from."""
    plan = compiled(mapping, from_, to, family, config, settings=options.settings(set_, "--set", tp=tp, pp=pp, vpp=vpp, ep=ep, etp=etp),
                    from_settings=options.settings(from_set, "--from-set"), stages=stages, from_stages=from_stages)  # fmt: skip
    text = plan.explain(name)
    print(json.dumps({"name": name, "lines": text.splitlines()}, indent=2) if as_json else text)


def check(files: Files, as_json: options.Json = False) -> None:
    """Find what is wrong with mapping files under any sizes."""
    from .. import failure
    from ..compiler.check.check import check as check_families
    from ..dsl.diagnostic import MappingError
    from ..dsl.render import to_record
    from ..library import mapping_files as library

    records: list[dict[str, Any]] = []
    for name in library.files_in(files):
        try:
            path = library.mapping_path(name)
            own = library.read_mapping(path)
            found = (*check_families(library.load([path], bases=True)), *library.check_templates(own))
        except MappingError as error:
            found = error.diagnostics
        records += [to_record(d) for d in found]
        if found and not as_json:
            print(failure.text(MappingError(*found), failure.colored(sys.stderr)), file=sys.stderr)
        elif not as_json:
            print(f"{name}: {_count(len(own.models), 'model')}, {_count(len(own.layouts), 'layout')}, no faults")
    if as_json:
        print(json.dumps({"diagnostics": records}, indent=2))
    if any(record["severity"] == "error" for record in records):
        raise typer.Exit(failure.FAILED)


def fmt(
    files: Files,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit with 1 if a file would change.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Write nothing; print what would change.")] = False,
) -> None:
    """Bring mapping files into their canonical form."""
    from ..dsl.formatting.format import format_text
    from ..library import mapping_files as library

    changed = 0
    for name in library.files_in(files):
        path = library.mapping_path(name)
        library.read_mapping(path)
        before = path.read_text(encoding="utf-8")
        after = format_text(before, library.display_name(path))
        if after == before:
            continue
        changed += 1
        if diff:
            sys.stdout.writelines(_diff(before, after, str(path)))
        elif check:
            print(f"{path}: would change")
        else:
            path.write_text(after, encoding="utf-8")
            print(f"{path}: changed")
    if changed and (check or diff):
        raise typer.Exit(1)


def _diff(before: str, after: str, path: str) -> list[str]:
    from difflib import unified_diff

    lines = unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), path, f"{path} (formatted)")
    return [line if line.endswith("\n") else f"{line}\n\\ no newline at the end\n" for line in lines]


def list_(
    name: Annotated[
        str | None, typer.Argument(metavar="[LAYOUT|FAMILY]", help="A layout, to see its parameters, or a family, to see its layouts.", show_default=False)
    ] = None,
    mapping: Annotated[
        str | None, typer.Option("--mapping", metavar="FILE|NAME", help="Only the families of this mapping.")
    ] = None,
    as_json: options.Json = False,
) -> None:
    """List families and layouts, or a layout's parameters."""
    from ..library import listing
    from ..library import mapping_files as library

    families = listing.listed(library.families(mapping))
    if not as_json:
        print(listing.about(name, families) if name else listing.table(families))
        return
    if name:
        listing.about(name, families)
    records = [listing.record(f) for f in families]
    if name and all(r["family"] != name for r in records):
        records = [{**r, "layouts": [x for x in r["layouts"] if x["layout"] == name]} for r in records]
    print(json.dumps({"families": [r for r in records if r["layouts"] and (name in (None, r["family"]) or r["layouts"][0]["layout"] == name)]}, indent=2))


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


def show(
    layout: Annotated[str, typer.Argument(metavar="LAYOUT", help="A layout, such as nxdt.", show_default=False)],
    family: Annotated[str, typer.Option("--family", metavar="NAME", help="The model family that the layout is shown for.")],
    mapping: Annotated[str | None, typer.Option("--mapping", metavar="FILE|NAME", help="A mapping of your own (default: those that ship).")] = None,
    tp: options.Tp = None,
    pp: options.Pp = None,
    vpp: options.Vpp = None,
    ep: options.Ep = None,
    etp: options.Etp = None,
    set_: options.Set = None,
) -> None:
    """Print a layout with all that it inherits, for one family and the parameters given."""
    from ..library.show import shown

    print(shown(layout, family, mapping, options.settings(set_, "--set", tp=tp, pp=pp, vpp=vpp, ep=ep, etp=etp)), end="")
