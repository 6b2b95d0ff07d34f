"""Faults about one of two checkpoints in; the same out, with the options named that say it of that one.

The compiler knows one layout at a time: it names `--set` for its parameters, whichever checkpoint it is of. The source's are
`--from-set` and `--from-stages`, and `--set` and `--stages` the target's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from ..compiler.link.flat import FlatLayout
from ..dsl.diagnostic import MappingError
from ..runtime.fault import Fault

SET, STAGES = r"(?<![\w-])--set\b(?!-)", r"(?<![\w-])--stages\b"


@contextmanager
def naming(change: Callable[[str], str]) -> Iterator[None]:
    """What is raised within has its sentences changed so."""
    try:
        yield
    except MappingError as error:
        raise MappingError(
            *(replace(each, title=change(each.title), notes=tuple(map(change, each.notes)), help=change(each.help)) for each in error.diagnostics)
        ) from None
    except Fault as error:
        raise Fault(error.code, change(error.title), notes=tuple(map(change, error.notes)), help=change(error.help)) from None


def of_source(layout: FlatLayout) -> Callable[[str], str]:
    """A sentence about a source of this layout. Axes and settings of the model are said by `--set` all the same."""
    names = "|".join(re.escape(param.name) for param in layout.params) or "(?!)"

    def change(text: str) -> str:
        return re.sub(STAGES, "--from-stages", re.sub(rf"{SET}(?= (?:{names})\b)", "--from-set", text))

    return change


def of_target(text: str) -> str:
    """A sentence about a target."""
    return re.sub(r"--from-(?=(?:set|stages)\b)", "--", text)
