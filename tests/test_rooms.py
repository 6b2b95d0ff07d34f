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
    """What is imported from this project, without `ckptc.`."""
    return {name.removeprefix("ckptc.") for name in names if name.startswith("ckptc.")}


def spot(room: str, path: Path) -> str:
    """A module's name without `ckptc.`."""
    parts = path.relative_to(folder_of(room)).with_suffix("").parts
    return ".".join([*([] if room == FACE else [room]), *(parts[:-1] if parts[-1] == "__init__" else parts)])


def box_of(module: str, doors: set[str]) -> str:
    """The sub-room that a module is in. A module that lies directly in a room, or in one of its `doors`, is a box of its own."""
    inside = module.rpartition(".")[0]
    return module if inside in doors else inside


def arrows(box: bool) -> dict[str, set[str]]:
    """Which module, or which box, imports which; only what is imported from this project."""
    names = {spot(room, path): (room, path) for room, path in modules()}
    doors = {"", *ROOMS, "runtime.formats"}
    found: dict[str, set[str]] = {}
    for name, (room, path) in names.items():
        if path.stem == "__init__":
            continue
        for target in ours(imports(room, path)):
            module = target if target in names else target.rpartition(".")[0]
            if module in names and names[module][1].stem != "__init__":
                one, other = (box_of(name, doors), box_of(module, doors)) if box else (name, module)
                if one != other:
                    found.setdefault(one, set()).add(other)
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A circle of arrows, if there is one."""
    done: set[str] = set()

    def walk(at: str, way: list[str]) -> list[str]:
        if at in way:
            return [*way[way.index(at) :], at]
        if at in done:
            return []
        for other in sorted(graph.get(at, ())):
            if found := walk(other, [*way, at]):
                return found
        done.add(at)
        return []

    return next((found for at in sorted(graph) if (found := walk(at, []))), [])


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
        ("dsl", {"dsl", "error"}),
        ("compiler", {"dsl", "compiler", "runtime.plan", "runtime.fault", "runtime.inside", "runtime.formats.registry"}),
        ("runtime", {"runtime", "error"}),
        ("mappings", set()),
    ],
)
def test_arrows_between_rooms_point_one_way(room: str, allowed: set[str]) -> None:
    for where, path in modules():
        if where == room:
            wrong = {name for name in ours(imports(room, path)) if not any(f"{name}.".startswith(f"{each}.") for each in allowed)}
            assert not wrong, f"{path.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("box", [False, True], ids=["modules", "sub-rooms"])
def test_imports_go_in_no_circle(box: bool) -> None:
    assert " -> ".join(circle(arrows(box))) == ""


def test_a_circle_is_found() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []


def test_no_folder_has_more_modules_than_one_can_keep_in_mind() -> None:
    folders: dict[Path, int] = {}
    for _, path in modules():
        folders[path.parent] = folders.get(path.parent, 0) + (path.stem != "__init__")
    assert {folder: number for folder, number in folders.items() if number > 14} == {}


def test_every_doorway_says_what_is_behind_it() -> None:
    """One paragraph: what comes in, what goes out, and in which order to read it."""
    for room, path in modules():
        if path.stem == "__init__" and room != "mappings":
            said = ast.get_docstring(ast.parse(path.read_text()))
            assert said, path
            assert len(said.split()) >= 12, path


def test_only_their_folders_name_the_formats() -> None:
    """Whoever needs a format asks the registry; nobody else compares names of formats."""
    named = {"safetensors", "xser", "torch_dist", "zarr", "megatron"}
    for room, path in modules():
        if room in ("dsl", "compiler", "runtime") and "formats" not in path.parts:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Compare):
                    words = {each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)}
                    assert not words & named, f"{path.relative_to(ROOT)}:{node.lineno}"


def test_each_outside_package_is_known_to_its_room_alone() -> None:
    assert importers("lark") <= {"dsl"}
    assert importers("jinja2") <= {"compiler"}
    assert importers("numba") <= {"runtime"}
    assert importers("torch") <= {"runtime", "face.api", "face.planned", "face.streaming"}
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
