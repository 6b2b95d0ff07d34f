"""Side files in, those that the target's layout takes along, under the names that they get there, out."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatch

from ..files.read_window import read_at
from ..files.window import SideFile
from ..formats.registry import archive_kinds
from ..plan.plan import Plan
from ..situations.situations import IN_PLACE, refuse_start


def carried(plan: Plan, beside: Sequence[SideFile], extra: Sequence[SideFile]) -> tuple[SideFile, ...]:
    """Of what stands beside a source's tensors, and the `extra` files that were chosen before; the source's go first."""
    written = {name for name, _ in plan.files}
    chosen = choose(named(beside, as_in_archives(plan.target.format, written)), plan.target.carry)
    for each in chosen:
        refuse_start(each.path, each.name, each.at, each.nbytes, IN_PLACE)
    taken = {(os.path.abspath(each.path), each.at) for each in extra}
    found = {**{each.name: each for each in extra}, **{each.name: each for each in chosen if (os.path.abspath(each.path), each.at) not in taken}}
    return tuple(each for name, each in found.items() if name not in written)


def choose(files: Iterable[SideFile], globs: Sequence[str]) -> list[SideFile]:
    """Those that a layout carries, whether or not an archive's number stands before their names."""
    return [each for each in files if any(fnmatch(name, glob) for name in (each.name, plain_name(each.name)) for glob in globs)]


def plain_name(name: str) -> str:
    """The name of a side file without what an archive puts before it."""
    for kind in archive_kinds():
        name = kind.plain_name(name)
    return name


def as_in_archives(format: str, written: Container[str]) -> bool:
    """Whether files in `format`, beside the texts that are `written`, are the content of an archive, packed or not."""
    return any(kind.holds_beside(format, written) for kind in archive_kinds())


def named(files: Iterable[SideFile], numbered: bool) -> list[SideFile]:
    """The files under their own names; only archives keep the numbers of artifacts, and files that differ keep theirs."""
    if numbered:
        return list(files)
    found: dict[str, SideFile] = {}
    for each in files:
        name = plain_name(each.name)
        known = found.get(name)
        if known is None or known.name == each.name:
            found.setdefault(name, replace(each, name=name))
        elif not _equal(known, each):
            found.setdefault(each.name, each)
    return list(found.values())


def _equal(one: SideFile, other: SideFile) -> bool:
    return one.nbytes == other.nbytes and read_at(one.path, one.at, one.nbytes) == read_at(other.path, other.at, other.nbytes)
