"""`ckptc check`, `fmt`, `list` and `explain`: what mapping files say."""

from __future__ import annotations

import json
import sys
from typing import Any

from . import options
from .convert import compiled
from .parse import Argument, Command, Option

FILES = Argument("FILE...", "Mapping files, folders of them, or names of those that ship.", many=True)
CHECK_ONLY = Option(("--check",), "Write nothing; exit with 1 if a file would change.", default=False)
DIFF = Option(("--diff",), "Write nothing; print what would change.", default=False)
NAME = Argument("NAME", "A stored tensor's name, of either side.")
LISTED = Argument("LAYOUT|FAMILY", "A layout, to see its parameters, or a family, to see its layouts.", required=False)
ONLY = Option(("--mapping",), "Only the families of this mapping.", "FILE|NAME")


def explain(said: dict[str, Any]) -> None:
    name = said["name"]
    text = compiled(said).explain(name)
    print(json.dumps({"name": name, "lines": text.splitlines()}, indent=2) if said["json"] else text)


def check(said: dict[str, Any]) -> int:
    as_json = said["json"]
    from .. import failure
    from ..compiler.check.check import check as check_families
    from ..compiler.check.check_keys import odd_keys
    from ..dsl.diagnostic import MappingError
    from ..dsl.render import to_record
    from ..library import mapping_files as library

    records: list[dict[str, Any]] = []
    for name in library.files_in(said[FILES.dest]):
        try:
            path = library.mapping_path(name)
            own = library.read_mapping(path)
            families = library.load([path], bases=True)
            found = (*check_families(families), *odd_keys(own, library.used_by(path), families), *library.check_templates(own))
            found = tuple(x for x in found if x.severity == "error" or x.labels[0].span.file == library.display_name(path))  # not what it uses
        except MappingError as error:
            found = error.diagnostics
        records += [to_record(d) for d in found]
        if found and not as_json:
            print(failure.text(MappingError(*found), failure.colored(sys.stderr)), file=sys.stderr)
        elif not as_json:
            print(f"{name}: {_count(len(own.models), 'model')}, {_count(len(own.layouts), 'layout')}, no faults")
    if as_json:
        print(json.dumps({"diagnostics": records}, indent=2))
    return failure.FAILED if any(record["severity"] == "error" for record in records) else 0


def fmt(said: dict[str, Any]) -> int:
    from ..dsl.formatting.format import format_text
    from ..library import mapping_files as library

    changed = 0
    for name in library.files_in(said[FILES.dest]):
        path = library.mapping_path(name)
        library.read_mapping(path)
        before = path.read_text(encoding="utf-8")
        after = format_text(before, library.display_name(path))
        if after == before:
            continue
        changed += 1
        if said["diff"]:
            sys.stdout.writelines(_diff(before, after, str(path)))
        elif said["check"]:
            print(f"{path}: would change")
        else:
            path.write_text(after, encoding="utf-8")
            print(f"{path}: changed")
    return 1 if changed and (said["check"] or said["diff"]) else 0


def _diff(before: str, after: str, path: str) -> list[str]:
    from difflib import unified_diff

    lines = unified_diff(before.splitlines(keepends=True), after.splitlines(keepends=True), path, f"{path} (formatted)")
    return [line if line.endswith("\n") else f"{line}\n\\ no newline at the end\n" for line in lines]


def list_(said: dict[str, Any]) -> None:
    from ..library import listing
    from ..library import mapping_files as library

    name = said[LISTED.dest]
    families = library.families(said["mapping"])
    if said["json"]:
        print(json.dumps({"families": listing.records(families, name)}, indent=2))
    else:
        print(listing.table(families) if name is None else listing.about(name, families))


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


EXPLAIN = Command(
    "Say where one tensor's elements go or come from.",
    (options.MAPPING_NAME, NAME),
    (
        ("What to write", (options.TO, *options.PARAMETERS)),
        ("What is read", (options.FROM_NAMED, options.FAMILY, options.CONFIG, options.FROM_SET, options.FROM_STAGES, options.JSON)),
    ),
    explain,
)
CHECK = Command("Find what is wrong with mapping files under any sizes.", (FILES,), (("Options", (options.JSON,)),), check)
FMT = Command("Bring mapping files into their canonical form.", (FILES,), (("Options", (CHECK_ONLY, DIFF)),), fmt)
LIST = Command("List families and layouts, or a layout's parameters.", (LISTED,), (("Options", (ONLY, options.JSON)),), list_)


def show(said: dict[str, Any]) -> None:
    from ..library.show import shown

    degrees = {option.dest: said[option.dest] for option in options.DEGREES}
    print(shown(said["layout"], said["family"], said["mapping"], options.settings(said["set"], "--set", **degrees)), end="")


SHOW = Command(
    "Print a layout with all that it inherits, for one family and the parameters given.",
    (Argument("LAYOUT", "A layout, such as nxdt."),),
    (
        (
            "Options",
            (
                Option(("--family",), "The model family that the layout is shown for.", "NAME", required=True),
                options.MAPPING,
                *options.DEGREES,
                options.PARAMETERS[len(options.DEGREES)],
            ),
        ),
    ),
    show,
)
