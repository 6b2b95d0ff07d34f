"""`ckptc verify` and `ckptc diff`: from options to a report, and its exit code, 0 for equal and 1 for different."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from typing import Any

from ..runtime.fault import Fault
from ..usage import UsageError
from . import options
from .parse import Argument, Command, Option

NAME = "ckptc verify"
DIFFERENT = 1
TO_FOUND = Option(("--to",), "The layout of DST (default: found from its files).", "LAYOUT")
MEMORY = Option(("--memory",), "The most buffer memory to use.", "SIZE", default=options.MEMORY)
OWN = Option(("--manifest",), "Hold SRC, without DST, against the checksums that it was written with.", default=False)
WITH_MANIFEST = (OWN, *options.REPORTING)
EXPLAIN = Option(("--explain",), "Say what would make equal what differs.", default=True, off="--no-explain")


def verify(said: dict[str, Any]) -> int:
    if said["manifest"]:
        return against_manifest(said)
    if said["dst"] is None:
        raise UsageError("missing argument 'DST'; with one place, --manifest holds it against its own checksums", NAME)
    from ..checking.verify import verify as judge
    from ..hub import find_source
    from ..meter import Meter

    talks = said["progress"] and not said["quiet"] and not said["json"]
    asked = options.compiling(said)
    asked = {name: asked[name] for name in ("to", "from_", "family", "config", "settings", "from_settings", "stages", "from_stages", "accept")}
    source, target = find_source(said["src"], said["revision"], talks), find_source(said["dst"], progress=talks)
    with Meter(talks) as meter:
        found = judge(source, target, mapping=said["mapping"], explain=said["explain"], memory=said["memory"], progress=meter, **asked)
    return say(found, said["quiet"], said["json"])


def against_manifest(said: dict[str, Any]) -> int:
    """Hold the one place that is named against the manifest that it was written with."""
    if said["dst"] is not None:
        raise UsageError("--manifest takes one place, which is held against its own checksums", NAME)
    given = [option for _, group in VERIFY.options for option in group if said[option.dest] not in (option.default, [])]
    if others := [option.off or option.names[0] for option in given if option not in WITH_MANIFEST]:
        raise UsageError(f"with --manifest, {' and '.join(others)} would change nothing: files are held against checksums alone", NAME)
    from ..hub import read_id
    from ..runtime.manifest.check import check_manifest
    from ..runtime.path_names import did_you_mean

    place = said["src"]
    named = read_id(place)
    if named is not None and not named.plain:
        raise Fault("remote-path", f"{place} is on the hub, and --manifest reads files of this machine", help="name the local path of what was written")
    if not os.path.lexists(place):
        hub = "; a repository of the hub is not read with --manifest" if named is not None else ""
        raise Fault("missing-file", f"there is no `{place}` here{hub}", help=did_you_mean(place) or "name what `ckptc convert --manifest` wrote")
    found = check_manifest(place)
    if said["json"]:
        print(json.dumps({"same": not found, "path": place, "findings": [asdict(each) for each in found]}, indent=2))
    elif not said["quiet"]:
        print(f"{'different' if found else 'equal':9} {place} is {'not ' * bool(found)}as its manifest says")
        for each in found:
            print(f"  {each.sentence}")
    return DIFFERENT if found else 0


def diff(said: dict[str, Any]) -> int:
    from ..checking.diff import diff as compare
    from ..hub import find_source

    one, other = (find_source(said[name], progress=not said["quiet"] and not said["json"]) for name in ("a", "b"))
    return say(compare(one, other, explain=said["explain"], memory=said["memory"]), said["quiet"], said["json"])


def say(found: Any, quiet: bool, as_json: bool) -> int:
    """Print a report; its exit code."""
    if as_json:
        print(json.dumps(found.record(), indent=2))
    elif not quiet:
        print(found)
    return 0 if found.same else DIFFERENT


VERIFY = Command(
    "Say whether DST holds exactly what SRC holds, whoever wrote it.",
    (options.SOURCE, Argument("DST", "What to judge: a folder, a file, or ORG/NAME on the hub.", required=False)),
    (
        ("What DST is", (TO_FOUND, *options.PARAMETERS)),
        ("What SRC is", (options.FROM, options.FAMILY, options.CONFIG, options.MAPPING, options.REVISION, options.FROM_SET, options.FROM_STAGES)),
        ("How it runs", (options.ACCEPT, OWN, EXPLAIN, MEMORY, *options.REPORTING)),
    ),
    verify,
)

DIFF = Command(
    "Compare two checkpoints of the same names, tensor by tensor, without any mapping.",
    (Argument("A", "A folder, a file, or ORG/NAME on the hub."), Argument("B", "What to compare with it.")),
    (("Options", (EXPLAIN, MEMORY, options.REPORTING[1], options.JSON)),),
    diff,
)
