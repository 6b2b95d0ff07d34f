"""Manifests: what they say of sources and results, and that they find whatever was changed since."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import ckptc
from ckptc.demo import write_llama
from ckptc.runtime.engine import engine
from ckptc.runtime.fault import Fault
from ckptc.runtime.manifest import digests as reading
from ckptc.runtime.manifest.check import check_manifest
from ckptc.runtime.manifest.manifest import MANIFEST, read_manifest

FORMATS = [("hf", "safetensors"), ("hf", "bin"), ("nxdt", "pt"), ("nxdt", "xser"), ("megatron", "torch_dist"), ("megatron", "zarr"), ("megatron-lm", "megatron")]


@pytest.fixture(scope="module")
def hf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manifest") / "hf"
    write_llama(folder)
    return folder


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize(("layout", "format"), FORMATS)
def test_a_manifest_says_what_each_file_and_tensor_holds(layout: str, format: str, hf: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = ckptc.plan(hf, to=layout, format=format).run(out, manifest=True)
    manifest, root = read_manifest(out)
    assert root == str(out)
    there = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert {file.name for file in manifest.files} | {MANIFEST} == there == set(report.files)
    tensors = 0
    for file in manifest.files:
        data = (out / file.name).read_bytes()
        assert (file.bytes, file.sha256) == (len(data), digest(data))
        for tensor in file.tensors:
            assert tensor.sha256 == digest(data[tensor.at : tensor.at + tensor.bytes])
            tensors += 1
    assert tensors >= 33
    sources = {file.name: file for file in manifest.sources}
    assert {name for name in sources if name.endswith(".safetensors")} == {f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)}
    for name, file in sources.items():
        assert (file.bytes, file.sha256) == ((hf / name).stat().st_size, digest((hf / name).read_bytes()))
    assert check_manifest(out) == ()


def test_the_same_conversion_has_the_same_manifest_wherever_it_lies(hf: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_llama(tmp_path / name / "hf")
        ckptc.plan(tmp_path / name / "hf", to="nxdt", settings={"tp": 2}).run(tmp_path / name / "out", manifest=True, memory=200_000 if name == "a" else 1 << 26)
    assert (tmp_path / "a/out" / MANIFEST).read_bytes() == (tmp_path / "b/out" / MANIFEST).read_bytes()
    ckptc.plan(hf, to="nxdt", settings={"tp": 2}, dtype="float32").run(tmp_path / "c", manifest=True)
    assert read_manifest(tmp_path / "c")[0].plan != read_manifest(tmp_path / "a/out")[0].plan


def test_an_archive_has_its_manifest_beside_it(hf: Path, tmp_path: Path) -> None:
    out = tmp_path / "x.nemo"
    ckptc.plan(hf, to="nemo").run(out, manifest=True)
    assert set(os.listdir(tmp_path)) == {"x.nemo", f"x.nemo.{MANIFEST}"}
    assert check_manifest(out) == check_manifest(f"{out}.{MANIFEST}") == ()
    (manifest,) = read_manifest(out)[0].files
    data = bytearray(out.read_bytes())
    wrong = manifest.tensors[3]
    data[wrong.at + wrong.bytes - 1] ^= 1
    out.write_bytes(data)
    (found,) = check_manifest(out)
    assert (found.code, found.file, found.tensors) == ("other-bytes", "x.nemo", (wrong.name,))


def change(what: str, out: Path) -> None:
    path = out / "model-00002-of-00004.safetensors"
    data = bytearray(path.read_bytes())
    if what == "bit":
        data[-1] ^= 128
    elif what == "header":
        data[12] ^= 1
    elif what == "short":
        del data[-3:]
    elif what == "long":
        data += b"#"
    elif what == "stale":
        (out / "model-00009-of-00009.safetensors").write_bytes(data)
        return
    elif what == "config":
        (out / "config.json").write_text("{}")
        return
    path.unlink()
    if what != "gone":
        path.write_bytes(data)


@pytest.mark.parametrize(
    ("what", "code", "tensors"),
    [("bit", "other-bytes", 1), ("header", "other-bytes", 0), ("short", "other-size", 1), ("long", "other-size", 0), ("stale", "extra-file", 0),
     ("config", "other-size", 0), ("gone", "missing-file", None)],
)  # fmt: skip
def test_what_was_changed_is_named(what: str, code: str, tensors: int | None, hf: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ckptc.plan(hf, to="hf").run(out, manifest=True, max_shard_size=250_000)
    assert len(list(out.glob("*.safetensors"))) == 4
    change(what, out)
    (found,) = check_manifest(out)
    assert found.code == code
    assert found.file in found.sentence
    assert tensors is None or len(found.tensors) == tensors


def test_a_merged_result_and_its_manifest_stand_beside_what_was_there(hf: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/notes.txt").write_text("mine")
    ckptc.plan(hf, to="nxdt").run(tmp_path / "out", manifest=True, merge=True)
    assert check_manifest(tmp_path / "out") == ()


def test_a_merge_adds_to_the_manifest_that_is_there(hf: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ckptc.plan(hf, to="nxdt").run(out, manifest=True)
    first, _ = read_manifest(out)
    ckptc.plan(hf, to="hf").run(out, manifest=True, merge=True)
    both, _ = read_manifest(out)
    assert {file.name for file in both.files} > {file.name for file in first.files}
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == {file.name for file in both.files} | {MANIFEST}
    assert check_manifest(out) == ()
    shard = next(file.name for file in first.files if file.name.endswith(".pt"))
    (out / shard).write_bytes((out / shard).read_bytes()[:-1] + b"#")
    assert [found.file for found in check_manifest(out)] == [shard]


def test_a_manifest_that_no_longer_holds_is_removed(hf: Path, tmp_path: Path) -> None:
    folder, archive = tmp_path / "out", tmp_path / "x.nemo"
    ckptc.plan(hf, to="nxdt").run(folder, manifest=True)
    ckptc.plan(hf, to="hf").run(folder, merge=True)
    assert not (folder / MANIFEST).exists()
    ckptc.plan(hf, to="nemo").run(archive, manifest=True)
    ckptc.plan(hf, to="nemo", dtype="float32").run(archive, overwrite=True)
    assert set(os.listdir(tmp_path)) == {"out", "x.nemo"}
    with pytest.raises(Fault, match="no-manifest"):
        check_manifest(archive)


@pytest.mark.parametrize(("to", "place"), [("nemo", f"x.nemo.{MANIFEST}"), ("nxdt", f"x/{MANIFEST}")])
def test_a_folder_in_the_place_of_a_manifest_is_said_before_anything_is_written(to: str, place: str, hf: Path, tmp_path: Path) -> None:
    (tmp_path / place).mkdir(parents=True)
    with pytest.raises(Fault, match=MANIFEST):
        ckptc.plan(hf, to=to).run(tmp_path / ("x.nemo" if to == "nemo" else "x"), manifest=True, merge=to == "nxdt")
    assert os.listdir(tmp_path) == [place.split("/", maxsplit=1)[0]]
    assert not list((tmp_path / place).iterdir())


def test_a_manifest_that_cannot_be_written_leaves_nothing(hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.replace

    def refused(source: str, target: str) -> None:
        if str(target).endswith(MANIFEST):
            raise OSError(28, "No space left on device", target)
        real(source, target)

    monkeypatch.setattr(os, "replace", refused)
    for to, name in (("nxdt", "out"), ("nemo", "x.nemo")):
        with pytest.raises(Fault, match="No space left"):
            ckptc.plan(hf, to=to).run(tmp_path / name, manifest=True)
    assert os.listdir(tmp_path) == ["x.nemo"]  # whole, without its manifest


def test_a_result_that_is_resumed_when_whole_has_its_manifest_made_anew(hf: Path, tmp_path: Path) -> None:
    for to, out in (("nxdt", tmp_path / "out"), ("nemo", tmp_path / "x.nemo")):
        plan = ckptc.plan(hf, to=to)
        plan.run(out)
        plan.run(out, resume=True, manifest=True)
        assert check_manifest(out) == ()
        place = out / MANIFEST if out.is_dir() else out.with_name(f"x.nemo.{MANIFEST}")
        wanted = place.read_bytes()
        place.write_bytes(wanted.replace(b"sha256", b"sha512", 1))
        plan.run(out, resume=True, manifest=True)
        assert place.read_bytes() == wanted


def test_a_manifest_of_one_file_in_a_folder_finds_what_is_extra(hf: Path, tmp_path: Path) -> None:
    """By whatever name it is called."""
    out = tmp_path / "out"
    ckptc.plan(hf, to="hf").run(out, manifest=True, max_shard_size=250_000)
    record = json.loads((out / MANIFEST).read_text())
    (out / MANIFEST).write_text(json.dumps(record | {"files": [file for file in record["files"] if "-00001-" in file["name"]]}))
    for place in (out, out / MANIFEST):
        assert [found.code for found in check_manifest(place)] == ["extra-file"] * 3


DAMAGE: list[Callable[[Any], Any]] = [
    lambda m: [], lambda m: {}, lambda m: m | {"format": "other"}, lambda m: m | {"version": 2}, lambda m: m | {"files": 7}, lambda m: m | {"plan": 7},
    lambda m: m | {"files": [7]}, lambda m: m | {"files": m["files"] * 2}, lambda m: m | {"files": [m["files"][0] | {"name": "../x"}]},
    lambda m: m | {"files": [m["files"][0] | {"name": "/etc/passwd"}]}, lambda m: m | {"files": [m["files"][0] | {"bytes": -1}]},
    lambda m: m | {"files": [m["files"][0] | {"bytes": 10**400}]} | {"version": "1"}, lambda m: m | {"files": [m["files"][0] | {"sha256": "g" * 64}]},
    lambda m: m | {"files": [m["files"][0] | {"tensors": [1]}]}, lambda m: m | {"sources": None},
    lambda m: m | {"files": [m["files"][0] | {"name": "\ud800"}]}, lambda m: m | {"sources": [m["sources"][0] | {"name": "a\udcff"}]},
    lambda m: m | {"files": [m["files"][0] | {"tensors": [{"name": "a", "dtype": "x", "shape": [1], "at": -1, "bytes": 4, "sha256": "0" * 64}]}]},
    lambda m: m | {"files": [m["files"][0] | {"tensors": [{"name": "a", "dtype": "x", "shape": [1], "at": 10**18, "bytes": 4, "sha256": "0" * 64}]}]},
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(DAMAGE)))
def test_a_damaged_manifest_is_refused(number: int, hf: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ckptc.plan(hf, to="nxdt").run(out, manifest=True)
    record = json.loads((out / MANIFEST).read_text())
    (out / MANIFEST).write_text(json.dumps(DAMAGE[number](record)))
    with pytest.raises(Fault, match="bad-manifest"):
        check_manifest(out)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '"ckptc-manifest"'])
def test_what_is_no_json_is_no_manifest(text: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(Fault, match="bad-manifest"):
        check_manifest(tmp_path)
    (tmp_path / MANIFEST).unlink()
    with pytest.raises(Fault, match="no-manifest"):
        check_manifest(tmp_path)


@pytest.mark.parametrize("chunk", [1, 3, 7, 1000])
def test_stretches_are_digested_wherever_reads_end(chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = bytes(range(101))
    (tmp_path / "f").write_bytes(data)
    monkeypatch.setattr(reading, "CHUNK", chunk)
    stretches = [(0, 0), (0, 5), (5, 1), (6, 0), (9, 50), (100, 1), (101, 0), (101, 9)]
    size, whole, parts = reading.digests(str(tmp_path / "f"), stretches)
    assert (size, whole) == (101, digest(data))
    assert parts == [digest(data[at : at + nbytes]) for at, nbytes in stretches]


def test_a_source_that_changes_while_the_manifest_is_made_ends_the_run(hf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_llama(tmp_path / "hf")
    plan = ckptc.plan(tmp_path / "hf", to="nxdt")
    real = engine.write_manifest

    def late(*args: Any) -> None:
        os.utime(tmp_path / "hf/model-00001-of-00003.safetensors", ns=(1, 1))
        real(*args)

    monkeypatch.setattr(engine, "write_manifest", late)
    with pytest.raises(Fault, match="source-changed"):
        plan.run(tmp_path / "out", manifest=True)
    assert os.listdir(tmp_path) == ["hf"]


def with_metadata(folder: Path, *metadata: dict[str, str]) -> Path:
    """The demo's Llama, its shards' `__metadata__` replaced."""
    write_llama(folder)
    for path, texts in zip(sorted(folder.glob("*.safetensors")), metadata, strict=False):
        data = path.read_bytes()
        size = int.from_bytes(data[:8], "little")
        header = json.dumps({**json.loads(data[8 : 8 + size]), "__metadata__": texts}).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + size :])
    return folder


def metadata_of(path: Path) -> dict[str, str]:
    with open(path, "rb") as file:
        header: dict[str, dict[str, str]] = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return header["__metadata__"]


def test_the_metadata_of_safetensors_is_kept(tmp_path: Path) -> None:
    own = {"format": "mlx", "title": "a ü", "licence": "mine"}
    source = with_metadata(tmp_path / "hf", own, own, {**own, "title": "b", "more": "m"})
    plan = ckptc.plan(source, to="hf")
    assert [note for note in plan.notes if "metadata" in note] == [
        f"the metadata `title` of {source} is 'a ü' in model-00001-of-00003.safetensors and 'b' in model-00003-of-00003.safetensors: the first is kept"
    ]
    plan.run(tmp_path / "out", max_shard_size=300_000)
    shards = sorted((tmp_path / "out").glob("*.safetensors"))
    assert len(shards) > 1
    for path in shards:
        assert metadata_of(path) == {"format": "pt", "title": "a ü", "licence": "mine", "more": "m"}
    plan = ckptc.plan(source, to="nxdt")
    (note,) = [note for note in plan.notes if "metadata" in note]
    assert note.endswith("have no place for it: `title`, `licence`, `more`")


def test_nothing_is_said_of_a_source_without_metadata_of_its_own(hf: Path, tmp_path: Path) -> None:
    for layout in ("hf", "nxdt"):
        assert not [note for note in ckptc.plan(hf, to=layout).notes if "metadata" in note]
    held = replace(ckptc.open(hf), metadata={})
    ckptc.plan(held, to="hf").run(tmp_path / "out")
    assert metadata_of(next((tmp_path / "out").glob("*.safetensors"))) == {"format": "pt"}
