"""What is kept between runs: equal to what is made anew, never believed when it does not fit, never able to do anything else."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ckptc.dsl import tree
from ckptc.dsl.parsing.parse import parse
from ckptc.library import kept, shipped
from ckptc.library import mapping_files as library
from ckptc.library.packing import pack, unpack
from ckptc.library.shipped import NODES
from ckptc.library.signs import signs_of

TEXT = (library.SHIPPED / "llama.ckmap").read_text(encoding="utf-8")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(kept.OFF, raising=False)
    library._parsed.cache_clear()
    library._shipped.cache_clear()
    yield tmp_path / "ckptc"
    library._parsed.cache_clear()
    library._shipped.cache_clear()


def same(one: Any, other: Any) -> bool:
    """Equal in every field, spans too, which `==` leaves out."""
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if is_dataclass(one):
        names = [field.name for field in fields(one)]
        return isinstance(one, type(other)) and all(same(getattr(one, name), getattr(other, name)) for name in names)
    return type(one) is type(other) and bool(one == other)


def test_a_tree_comes_back_as_it_was() -> None:
    for path in library.SHIPPED.glob("*.ckmap"):
        made = parse(path.read_text(encoding="utf-8"), path.name)
        assert same(unpack(json.loads(json.dumps(pack(made, NODES))), NODES), made)


@pytest.mark.parametrize("value", [0, 1, True, False, None, 1.0, "", "1", (), (1, (2, True), 1.0), frozenset({"b", "a"})])
def test_values_keep_their_types(value: Any) -> None:
    assert same(unpack(json.loads(json.dumps(pack((value, value), NODES))), NODES), (value, value))


def test_other_things_are_not_packed() -> None:
    for value in ([1], {"a": 1}, b"x", Path("x"), object(), parse):
        with pytest.raises(ValueError):
            pack((1, value), NODES)


REF = {"classes": ["Ref", "Span"], "constants": ["a", "f", 3], "rows": [[3, 1, 2, 2, 2, 2], [2, 0, 3]], "root": 4}


@pytest.mark.parametrize(
    "change",
    [
        {"classes": ["Ref", "sys"]},
        {"classes": ["Ref", "_span"]},
        {"classes": ["Ref", "Rule"]},
        {"classes": [["Ref"], "Span"]},
        {"classes": None},
        {"constants": [["a"], "f", 3]},
        {"constants": [{"a": 1}, "f", 3]},
        {"constants": [7, "f", 3]},
        {"constants": ["a", "f"]},
        {"rows": [[3, 1, 2, 2, 2, 2], [2, 3, 0]]},
        {"rows": [[3, 1, 2, 2, 2, 2], [2, 0]]},
        {"rows": [[3, 1, 2, 2, 2, 2], [2, 0, 3, 3]]},
        {"rows": [[3, 1, 2, 2, 2, 2], [9, 0, 3]]},
        {"rows": [[2, 0, 4], [3, 1, 2, 2, 2, 2]]},
        {"rows": [[3, 1, 2, 2, 2, 2], []]},
        {"rows": [[3, 1, 2, 2, 2, 2], ["__class__", 0, 3]]},
        {"rows": 5},
        {"root": 17},
        {"root": "a"},
    ],
)
def test_forged_data_make_no_tree(change: dict[str, Any]) -> None:
    assert unpack(REF, NODES) == tree.Ref("a")
    with pytest.raises(ValueError):
        unpack({**REF, **change}, NODES)


def test_a_node_in_the_place_of_another_is_refused() -> None:
    """Every part is of the type that its class declares, those within tuples too."""
    made = parse(TEXT, "x")
    layout = made.layouts[0]
    for wrong in (replace(layout, name=5), replace(layout, params=("tp",)), replace(layout, items=(layout.span,)), replace(made, layouts=(made.models[0],))):  # type: ignore[arg-type]
        with pytest.raises(ValueError):
            unpack(pack(wrong, NODES), NODES)


def test_what_was_kept_is_what_was_made(home: Path) -> None:
    first, again = library.families(None), (library._shipped.cache_clear(), library.families(None))[1]
    assert [type(family).__name__ for family in (first[0], again[0])] == ["Family", "KeptFamily"]
    for made, read in zip(first, again, strict=True):
        assert [signs_of(layout) for layout in read.layouts] == [signs_of(layout) for layout in made.layouts]
        assert same(read, made)
    assert home.stat().st_mode & 0o777 == 0o700


def test_only_what_is_asked_for_is_read(home: Path) -> None:
    library.families(None)
    library._shipped.cache_clear()
    llama = next(family for family in library.families(None) if family.name == "llama")
    assert llama.layout("hf").rules
    assert [layout.name for layout in llama.layouts if "rules" in vars(layout)] == ["hf"]
    assert "model" not in vars(llama)
    assert replace(llama, name="other").model is llama.model


def kept_as(name: str, key: str, value: object) -> Path:
    kept.keep(name, key, [value])
    return Path(str(kept._place(name)))


def test_a_file_is_of_one_name_and_one_key(home: Path) -> None:
    assert kept.recall("x", "a" * 64) is None
    kept_as("x", "a" * 64, {"b": 1})
    found = kept.recall("x", "a" * 64)
    assert found is not None
    assert [part.data() for part in found] == [{"b": 1}]
    assert kept.recall("x", "b" * 64) is None
    assert kept.recall("y", "a" * 64) is None
    kept_as("x", "b" * 64, {"b": 2})
    assert len(list(home.iterdir())) == 1


def test_the_key_is_of_the_texts_and_of_what_reads_them(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kept.key_of("a", "b") == kept.key_of("a", "b")
    assert len({kept.key_of("a", "b"), kept.key_of("ab"), kept.key_of("b", "a")}) == 3
    before = kept.key_of("a")
    monkeypatch.setattr(kept, "_MAKERS", kept._MAKERS[1:])
    assert kept.key_of("a") != before


def test_damaged_and_hostile_files_are_made_anew(home: Path) -> None:
    name, path = "mappings/llama.ckmap", library.SHIPPED / "llama.ckmap"
    library.read_mapping(path)
    [file] = home.iterdir()
    whole = file.read_bytes()
    hit = home / "hit"
    attack = b"cos\nsystem\n(S'touch " + str(hit).encode() + b"'\ntR."
    key, sums, text, last = whole.split(b"\n")
    bad = [
        b"", whole[:-9], whole[:70], attack, key + b"\n" + attack, b"\n".join([key, sums, attack, last]), whole.replace(b"Layout", b"Leyout", 1),
        pickle.dumps(parse(TEXT, name)), b"\n".join([key, b"[" * 100000, text, last]), b"\xff" * 400,
    ]  # fmt: skip
    for data in bad:
        file.write_bytes(data)
        library._parsed.cache_clear()
        assert same(library.read_mapping(path), parse(TEXT, name))
    forged = {**REF, "root": 4}
    kept.keep(name, key.decode(), [forged])  # whole, and no mapping
    library._parsed.cache_clear()
    assert same(library.read_mapping(path), parse(TEXT, name))
    assert not hit.exists()


def test_damage_to_any_part_of_the_library_changes_nothing(home: Path) -> None:
    made = library.families(None)
    [file] = [each for each in home.iterdir() if each == kept._place(shipped.NAME)]
    lines = file.read_bytes().split(b"\n")
    for number in (2, 3, len(lines) // 2, len(lines) - 2):
        file.write_bytes(b"\n".join([*lines[:number], lines[number].replace(b"1", b"2", 1), *lines[number + 1 :]]))
        library._shipped.cache_clear()
        assert same(library.families(None), made)


def test_a_place_that_others_may_write_is_not_used(home: Path) -> None:
    file = kept_as("x", "a" * 64, 1)
    assert kept.recall("x", "a" * 64)
    file.chmod(0o666)
    assert kept.recall("x", "a" * 64) is None
    file.rename(home / "elsewhere")
    (home / "elsewhere").chmod(0o600)
    file.symlink_to(home / "elsewhere")
    assert kept.recall("x", "a" * 64) is None
    file.unlink()
    home.chmod(0o777)
    kept.keep("x", "a" * 64, [1])
    assert [each.name for each in home.iterdir()] == ["elsewhere"]


def test_a_folder_that_cannot_be_made_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    kept.keep("x", "a" * 64, [1])
    assert kept.recall("x", "a" * 64) is None


def test_a_warm_start_imports_no_parser(home: Path) -> None:
    code = "import sys; from ckptc.library import mapping_files as library; library.families({}); print('lark' in sys.modules)"
    for of in ("'llama'", "None"):
        said = [
            subprocess.run([sys.executable, "-c", code.format(of)], capture_output=True, text=True, check=True, env={**os.environ}).stdout
            for _ in range(2)
        ]
        assert said == ["True\n", "False\n"]
        for each in home.iterdir():
            each.unlink()


@dataclass(frozen=True)
class Stranger:
    name: str


def test_a_class_that_is_not_known_is_not_packed_even_under_a_known_name() -> None:
    Stranger.__name__ = "Ref"
    with pytest.raises(ValueError):
        pack(Stranger("a"), NODES)


@pytest.mark.parametrize("place", [None, "", "not/absolute", "nowhere", "a file", "read only"])
def test_without_a_home_that_can_be_written_nothing_is_kept(place: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    def nobody(number: int) -> Any:
        raise KeyError(number)

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv(kept.OFF, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    (tmp_path / "a file").touch()
    if place is None:
        monkeypatch.delenv("HOME", raising=False)
    else:
        monkeypatch.setenv("HOME", str(tmp_path / place) if place not in ("", "not/absolute") else place)
    if place == "read only":
        (tmp_path / place).mkdir()

        def refused(self: Path, *how: Any, **more: Any) -> None:
            raise PermissionError(13, "Permission denied", str(self))

        monkeypatch.setattr(Path, "mkdir", refused)
    before = sorted(tmp_path.rglob("*"))
    kept.keep("name", "key", [1])
    assert kept.recall("name", "key") is None
    assert sorted(tmp_path.rglob("*")) == before


def test_a_home_is_where_data_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv(kept.OFF, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    kept.keep("name", "key", [1])
    (part,) = kept.recall("name", "key") or ()
    assert part.data() == 1
    assert (tmp_path / ".cache" / "ckptc").is_dir()
