"""Kept syntax trees: equal to parsed ones, never believed when they do not fit, never able to do anything else."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ckptc.dsl.parsing.parse import parse
from ckptc.library import mapping_files as library
from ckptc.library import tree_cache

TEXT = (library.SHIPPED / "llama.ckmap").read_text(encoding="utf-8")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(tree_cache.OFF, raising=False)
    return tmp_path / "ckptc"


def test_a_kept_tree_equals_the_parsed_one(home: Path) -> None:
    assert tree_cache.recall(TEXT, "x") is None
    tree_cache.keep(TEXT, "x", parse(TEXT, "x"))
    assert tree_cache.recall(TEXT, "x") == parse(TEXT, "x")
    assert tree_cache.recall(TEXT + "\n", "x") is None
    assert tree_cache.recall(TEXT, "y") is None
    assert home.stat().st_mode & 0o777 == 0o700
    assert len(list(home.iterdir())) == 1


def test_damaged_and_hostile_files_are_ignored(home: Path) -> None:
    tree_cache.keep(TEXT, "x", parse(TEXT, "x"))
    [file] = home.iterdir()
    whole = file.read_bytes()
    key = whole[:32]
    hit = home / "hit"
    bad = [b"", key, whole[:-9], key + b"\x00", key + pickle.dumps({"a": 1}), key + b"[" * 100_000, key + b'{"a":1}', key + b"[]", key + b"[0]"]
    bad += [key + text for text in (b'["Mapping"]', b'["Path","/"]', b'["Scalar"]', b'["__builtins__"]', b'["Mapping",[0],[0],{}]', b'["os"]', b"[false]", b"9" * 9999)]
    bad.append(whole.replace(b"[0,", b"[7,", 1))
    bad.append(key + b"cos\nsystem\n(S'touch " + str(hit).encode() + b"'\ntR.")
    bad.append(key + b"cckptc.dsl.tree\ndataclass\n(tR.")
    for data in bad:
        file.write_bytes(data)
        assert tree_cache.recall(TEXT, "x") is None
    assert not hit.exists()


def test_a_kept_tree_holds_no_pickle(home: Path) -> None:
    tree_cache.keep(TEXT, "x", parse(TEXT, "x"))
    [file] = home.iterdir()
    json.loads(file.read_bytes()[32:])
    for name in library.shipped_names():
        text = (library.SHIPPED / f"{name}.ckmap").read_text(encoding="utf-8")
        tree_cache.keep(text, name, parse(text, name))
        known = tree_cache.recall(text, name)
        assert known == parse(text, name)
        assert tree_cache._plain(known) == tree_cache._plain(parse(text, name))  # places in the text, too


def test_a_change_of_the_grammar_is_noticed(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tree_cache._HOME, tmp_path / "dsl")
    monkeypatch.setattr(tree_cache, "_HOME", tmp_path / "dsl")
    tree_cache.keep(TEXT, "x", parse(TEXT, "x"))
    assert tree_cache.recall(TEXT, "x") is not None
    for changed in ("tree.py", "parsing/grammar.lark", "parsing/build.py"):
        before = tree_cache._key(TEXT, "x")
        (tmp_path / "dsl" / changed).write_text("#")
        assert tree_cache._key(TEXT, "x") != before
    assert tree_cache.recall(TEXT, "x") is None


def test_a_folder_that_others_may_write_is_not_used(home: Path) -> None:
    home.mkdir()
    home.chmod(0o777)
    tree_cache.keep(TEXT, "x", parse(TEXT, "x"))
    assert list(home.iterdir()) == []


def test_a_folder_that_cannot_be_made_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    tree_cache.keep(TEXT, "x", parse(TEXT, "x"))
    assert tree_cache.recall(TEXT, "x") is None


def test_a_warm_start_imports_no_parser(home: Path) -> None:
    code = "import sys; from ckptc.library import mapping_files as library; library.families('llama'); print('lark' in sys.modules)"
    said = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert said == ["True\n", "False\n"]
