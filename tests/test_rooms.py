"""Who may import whom, read from the sources; that every sub-package ships; that no module is a drawer of odds and ends."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("dsl", "compiler", "runtime", "mappings")
FACE = "face"
DRAWERS = {"utils", "util", "helpers", "helper", "common", "base", "manager", "misc"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def modules() -> Iterator[tuple[str, Path]]:
    """(room, file) of every module."""
    for room in ROOMS:
        yield from ((room, path) for path in sorted((ROOT / room).rglob("*.py")))
    for path in sorted((ROOT / "ckptc").rglob("*.py")):
        if path.relative_to(ROOT / "ckptc").parts[0] not in ROOMS:
            yield FACE, path


def folder_of(room: str) -> Path:
    return ROOT / ("ckptc" if room == FACE else room)


def imports(room: str, path: Path) -> set[str]:
    """Absolute names of all that a module imports, anywhere in it; those of ours begin with `ckptc.`."""
    package = ["ckptc", *([] if room == FACE else [room]), *path.relative_to(folder_of(room)).parts[:-1]]
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def ours(names: set[str]) -> set[str]:
    """`room.module` of what is imported from this project."""
    return {".".join(name.split(".")[1:3]) for name in names if name.startswith("ckptc.")}


def importers(package: str) -> set[str]:
    """Rooms, and for the face its modules, that import an outside package."""
    found = set()
    for room, path in modules():
        if any(name.split(".")[0] == package for name in imports(room, path)):
            found.add(f"{FACE}.{path.stem}" if room == FACE else room)
    return found


@pytest.mark.parametrize(
    ("room", "allowed"),
    [
        ("dsl", {"dsl"}),
        ("compiler", {"dsl", "compiler", "runtime.plan", "runtime.fault", "runtime.inside"}),
        ("runtime", {"runtime"}),
        ("mappings", set()),
    ],
)
def test_arrows_between_rooms_point_one_way(room: str, allowed: set[str]) -> None:
    for where, path in modules():
        if where == room:
            wrong = {n for n in ours(imports(room, path)) if n not in allowed and n.split(".")[0] not in allowed}
            assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


def test_each_outside_package_is_known_to_its_room_alone() -> None:
    assert importers("lark") <= {"dsl"}
    assert importers("jinja2") <= {"compiler"}
    assert importers("numba") <= {"runtime"}
    assert importers("torch") <= {"runtime", "face.api", "face.streaming"}
    assert importers("numpy") <= {"runtime"}
    assert importers("sentencepiece") <= {"runtime"}
    assert importers("huggingface_hub") <= {"face.hub"}


def test_every_sub_package_ships() -> None:
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    there = set()
    for room in (*ROOMS, FACE):
        folder = folder_of(room)
        for init in folder.rglob("__init__.py"):
            inner = init.parent.relative_to(folder).parts
            if room != FACE or not inner or inner[0] not in ROOMS:
                there.add(".".join(["ckptc", *([] if room == FACE else [room]), *inner]))
    assert there == listed


def test_no_module_is_a_drawer() -> None:
    assert not [path for _, path in modules() if path.stem in DRAWERS]


def test_the_face_links_to_every_room() -> None:
    for room in ROOMS:
        assert (ROOT / "ckptc" / room).resolve() == ROOT / room
