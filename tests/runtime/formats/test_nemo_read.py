""".nemo archives are read where their members lie: those that NeMo wrote, small ones, compressed ones and unpacked ones."""

from __future__ import annotations

import gc
import gzip
import json
import shutil
import tarfile
import tempfile
from pathlib import Path

import pytest
import torch

from ckptc.runtime.checkpoint.checkpoint import Checkpoint, open_checkpoint
from ckptc.runtime.fault import Fault
from ckptc.runtime.formats.nemo import gunzip as spool
from ckptc.runtime.formats.nemo.tar_members import read_members
from tests.archives import unpack

from .nemo_files import ARTIFACT, CONFIG, contents, pack, saved

ROOT = Path(__file__).resolve().parents[3]
ORACLE = next((p for p in (ROOT / "shared", ROOT.parent / "shared") if p.is_dir()), ROOT) / "oracle/nemo/nemo_archive"
REAL = json.loads((ORACLE / "expected.json").read_text())["cases"] if ORACLE.is_dir() else []
RANKS = ("tp_rank_00_pp_rank_000", "tp_rank_00_pp_rank_001", "tp_rank_01_pp_rank_000", "tp_rank_01_pp_rank_001")


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where compressed archives go."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(spool, "KEPT_FREE", 0)
    return tmp_path / "temporary"


def check_small(opened: Checkpoint, ranks: tuple[str, ...]) -> None:
    files = [f"{rank}/model_weights.ckpt" if rank else "model_weights.ckpt" for rank in ranks]
    assert [(t.file, t.name) for t in opened] == [(file, name) for file in files for name in ("w", "b")]
    for number, file in enumerate(files):
        assert torch.equal(opened.by_file(file, "w").read(), torch.arange(15.0).reshape(3, 5) + number)
        assert torch.equal(opened.by_file(file, "b").read(), torch.full((7,), number, dtype=torch.bfloat16))
    assert opened.config("model_config.yaml") == {"hidden_size": 16, "tokenizer": {"library": "sentencepiece", "model": f"nemo:{ARTIFACT}"}}
    assert opened.config("other.yaml") is None
    assert opened.artifacts() == (ARTIFACT,)
    assert {opened.artifact(name) for name in (ARTIFACT, f"nemo:{ARTIFACT}", "tok.model")} == {b"pieces" * 300}


@pytest.mark.skipif(not REAL, reason="the frameworks' own files are not here")
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("case", REAL, ids=lambda case: case["file"])
def test_archives_that_nemo_wrote(case, packed, digest, tmp_path):
    path = ORACLE / case["file"]
    if packed:
        path = tmp_path / "old.nemo"
        path.write_bytes(gzip.compress((ORACLE / case["file"]).read_bytes()))
    opened = open_checkpoint(path)
    assert opened.format == "nemo"
    assert sorted((t.file, t.name) for t in opened) == sorted((t["file"], t["name"]) for t in case["tensors"])
    for said in case["tensors"]:
        tensor = opened.by_file(said["file"], said["name"])
        assert (list(tensor.shape), tensor.dtype, digest(tensor.read())) == (said["shape"], said["dtype"], said["sha256"])
    files = [name.removeprefix("./") for name, kind, _ in case["members"] if kind == "0"]
    assert [*opened.side_files, *dict.fromkeys(t.file for t in opened)] == files
    assert opened.config("model_config.yaml")["nemo_version"] == "1.23.0"
    name = opened.config("model_config.yaml")["tokenizer"]["model"]
    with tarfile.open(ORACLE / case["file"]) as archive:
        assert opened.artifact(name) == archive.extractfile("./" + name.removeprefix("nemo:")).read()
    assert bool(opened.notes) == packed


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("prefix", ["./", "", ".//"])
@pytest.mark.parametrize("ranks", [("",), ("mp_rank_00", "mp_rank_01"), RANKS])
def test_each_form_of_tar_and_each_set_of_ranks(format, prefix, ranks, tmp_path):
    check_small(open_checkpoint(pack(tmp_path / "x.nemo", contents(ranks), format=format, prefix=prefix)), ranks)


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_and_sizes_beyond_octal(format, tmp_path):
    """Sizes of more than 8 GiB, in files that are not that long: the header is read, the end is missed."""
    long = "tokenizer/" + "ä" * 140 + ".json"
    opened = open_checkpoint(pack(tmp_path / "x.nemo", {**contents(), long: b"here"}, format=format))
    assert opened.artifact(long) == b"here"
    huge = tarfile.TarInfo("./model_weights.ckpt")
    huge.size = 40 << 30
    with open(tmp_path / "y.nemo", "wb") as file:
        header = huge.tobuf(format)
        file.write(header)
        file.truncate(len(header) + huge.size + 1024)
    assert [(m.at, m.nbytes) for m in read_members(str(tmp_path / "y.nemo")).values()] == [(len(header), huge.size)]


def test_the_members_of_an_unpacked_archive(tmp_path):
    for ranks in (("",), ("mp_rank_00", "mp_rank_01"), RANKS):
        folder = tmp_path / str(len(ranks))
        for name, data in {**contents(ranks), "weights.bin.txt": b"", "logs/x.pt": b"no torch file"}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        (folder / "weights.bin.txt").unlink()
        opened = open_checkpoint(folder)
        assert opened.format == "pt"
        check_small(opened, ranks)


def test_settings_below_a_node_model_are_the_models(tmp_path):
    text = f"model:\n{CONFIG}trainer: {{devices: 8}}\n".replace("\n", "\n  ").replace("\n  trainer", "\ntrainer")
    opened = open_checkpoint(pack(tmp_path / "x.nemo", {**contents(), "model_config.yaml": text.encode()}))
    assert opened.config("model_config.yaml")["hidden_size"] == 16


def test_a_compressed_archive_is_decompressed_once_and_cleared_away(tmp_path, temporary):
    pack(tmp_path / "x.nemo", contents(("mp_rank_00", "mp_rank_01")), mode="w:gz")
    opened = open_checkpoint(tmp_path / "x.nemo")
    check_small(opened, ("mp_rank_00", "mp_rank_01"))
    assert "compressed" in opened.notes[0]
    again = open_checkpoint(tmp_path / "x.nemo")
    assert len(list(temporary.iterdir())) == 1
    tensor = opened.by_file("mp_rank_01/model_weights.ckpt", "w")
    del opened, again
    gc.collect()
    assert tensor.read()[0, 0] == 1  # a tensor keeps what it is read from
    del tensor
    gc.collect()
    assert not list(temporary.iterdir())


def test_several_compressed_streams_are_one(tmp_path):
    raw = pack(tmp_path / "x.tar", contents()).read_bytes()
    (tmp_path / "x.nemo").write_bytes(gzip.compress(raw[:5000]) + gzip.compress(raw[5000:]) + bytes(512))
    check_small(open_checkpoint(tmp_path / "x.nemo"), ("",))


@pytest.mark.parametrize("part", [0.02, 0.5, 0.999])
def test_a_compressed_archive_that_ends_early_leaves_nothing(part, tmp_path, temporary):
    raw = gzip.compress(pack(tmp_path / "x.tar", contents()).read_bytes())
    (tmp_path / "x.nemo").write_bytes(raw[: int(len(raw) * part)])
    with pytest.raises(Fault, match=r"truncated-file.*x\.nemo"):
        open_checkpoint(tmp_path / "x.nemo")
    (tmp_path / "x.nemo").write_bytes(raw[:300] + bytes(8) + raw[308:])
    with pytest.raises(Fault, match=r"bad-archive.*x\.nemo|truncated-file.*x\.nemo"):
        open_checkpoint(tmp_path / "x.nemo")
    gc.collect()
    assert not list(temporary.iterdir())


def test_too_little_room_to_decompress_is_said(tmp_path, temporary, monkeypatch):
    pack(tmp_path / "x.nemo", contents(), mode="w:gz")
    monkeypatch.setattr(spool, "KEPT_FREE", 1 << 62)
    with pytest.raises(Fault, match=r"disk-full.*x\.nemo"):
        open_checkpoint(tmp_path / "x.nemo")
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("folder", [False, True])
def test_unfinished_and_sharded_weights_are_refused(folder, tmp_path):
    """What is beside distributed weights is not taken for a rank's."""
    beside = {"model_config.yaml": CONFIG.encode(), "model_weights/common.pt": saved(n=torch.ones(1))}
    unfinished = {**beside, "model_weights/metadata.json": b"{}"}
    undescribed = {**beside, "model_weights/metadata.json": b'{"sharded_backend": "torch_dist"}'}
    blobs = {**beside, "model_weights/__0_0.distcp": b""}
    sharded = {"model_config.yaml": CONFIG.encode(), "mp_rank_00_fsdp_shard_00000/model_weights.ckpt": saved(n=torch.ones(1))}
    cases = [(unfinished, "no-checkpoint"), (undescribed, "missing-file"), (blobs, "missing-file"), (sharded, "fsdp-checkpoint")]
    for number, (members, code) in enumerate(cases):
        place = pack(tmp_path / f"{number}.nemo", members)
        if folder:
            unpack(place, tmp_path / str(number))
            place = tmp_path / str(number)
        with pytest.raises(Fault, match=code) as fault:
            open_checkpoint(place)
        assert place.name in fault.value.title
    both = open_checkpoint(pack(tmp_path / "both.nemo", {**unfinished, **contents()}))
    assert {t.file for t in both} == {"model_weights.ckpt"}


def test_an_archive_without_weights_says_what_it_holds(tmp_path):
    with pytest.raises(Fault, match="no-checkpoint") as fault:
        open_checkpoint(pack(tmp_path / "x.nemo", {"model_config.yaml": b"a: 1\n"}))
    assert fault.value.notes == ("it holds model_config.yaml",)
    shutil.copy(tmp_path / "x.nemo", tmp_path / "y.nemo")
    opened = open_checkpoint(pack(tmp_path / "x.nemo", contents()))
    with pytest.raises(Fault, match=r"missing-file.*x\.nemo.*`none`"):
        opened.artifact("none")
