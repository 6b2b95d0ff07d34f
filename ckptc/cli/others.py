"""`ckptc inspect` and `version`: what a checkpoint is, and what this is."""

from __future__ import annotations

from typing import Any

from .. import __version__
from . import options
from .parse import Argument, Command


def inspect(said: dict[str, Any]) -> None:
    from ..survey import describe, survey

    found = survey(said["path"], config=said["config"], revision=said["revision"], progress=not said["json"], mapping=said["mapping"])
    print(_json(found) if said["json"] else describe(found))


def version(said: dict[str, Any]) -> None:
    print(_json({"version": __version__}) if said["json"] else f"ckptc {__version__}")


def _json(data: object) -> str:
    import json

    return json.dumps(data, indent=2)


INSPECT = Command(
    "Say what a checkpoint is, from its headers.",
    (Argument("PATH", "A folder, a file, or ORG/NAME on the hub."),),
    (("Options", (options.CONFIG, options.MAPPING, options.REVISION, options.JSON)),),
    inspect,
)
VERSION = Command("Print the version.", (), (("Options", (options.JSON,)),), version)
