"""Distributed checkpoints where runs, NeMo 1 and NeMo 2 keep them: found, read where they lie, with what is beside them."""

from __future__ import annotations

import gzip
import pickle
import shutil
from itertools import product
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)

import ckptc
from ckptc.runtime.checkpoint.checkpoint import Checkpoint
from ckptc.runtime.fault import Fault
from ckptc.runtime.files import read_window
from ckptc.runtime.files.window import along, at_index

from .nemo_files import ARTIFACT, CONFIG, pack

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
VALUES = {"module.decoder.layers.w": torch.arange(2 * 5 * 7.0).reshape(2, 5, 7), "module.norm": torch.arange(11.0)}
STATE = {"optimizer.state.exp_avg.module.norm": torch.ones(11), "chained_0.optimizer.state.exp_avg.module.norm": torch.ones(11)}


def save(folder: Path, **others: torch.Tensor) -> Path:
    dcp.save({**VALUES, **STATE, **others}, checkpoint_id=folder, no_dist=True)
    (folder / "metadata.json").write_text('{"sharded_backend": "torch_dist", "sharded_backend_version": 1}')
    torch.save({"iteration": 3, "w": torch.ones(3)}, folder / "common.pt")
    return folder


def check(opened: Checkpoint, folder: str) -> None:
    assert opened.format == "torch_dist"
    assert {(t.file, t.name) for t in opened} == {(folder, name) for name in VALUES}
    assert all(torch.equal(t.read(), VALUES[t.name]) for t in opened)
    assert {(folder, name) for name in STATE} == set(opened.others)


def test_the_state_of_optimizers_and_the_files_of_tensors_are_not_beside(tmp_path: Path) -> None:
    folder = save(tmp_path / "it")
    (folder / "run_config.yaml").write_text("a: 1\n")
    opened = ckptc.open(folder)
    check(opened, "")
    assert opened.side_files == ("run_config.yaml",)
    assert opened.config("run_config.yaml") == {"a": 1}


def test_nemo_2_has_its_context_beside(tmp_path: Path) -> None:
    save(tmp_path / "weights")
    (tmp_path / "context" / "nemo_tokenizer").mkdir(parents=True)
    (tmp_path / "context" / "model.yaml").write_text("hidden_size: 16\n")
    (tmp_path / "context" / "nemo_tokenizer" / "tokenizer.json").write_text("{}")
    opened = ckptc.open(tmp_path)
    check(opened, "weights/")
    assert opened.side_files == ("context/model.yaml", "context/nemo_tokenizer/tokenizer.json")
    assert opened.config("context/model.yaml") == {"hidden_size": 16}
    assert opened.artifact("context/nemo_tokenizer/tokenizer.json") == b"{}"


def test_nemo_1_unpacked(tmp_path: Path) -> None:
    save(tmp_path / "model_weights")
    (tmp_path / "model_config.yaml").write_text(CONFIG)
    (tmp_path / ARTIFACT).write_bytes(b"pieces")
    opened = ckptc.open(tmp_path)
    check(opened, "model_weights/")
    assert opened.config("model_config.yaml")["hidden_size"] == 16
    assert opened.artifact("tok.model") == b"pieces"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("prefix", ["./", ""])
def test_nemo_1_archives(tmp_path: Path, prefix: str, packed: bool) -> None:
    folder = save(tmp_path / "saved")
    members = {"model_config.yaml": CONFIG.encode(), ARTIFACT: b"pieces"}
    path = pack(tmp_path / "x.nemo", members | {f"model_weights/{f.name}": f.read_bytes() for f in folder.iterdir()}, prefix=prefix)
    if packed:
        path.write_bytes(gzip.compress(path.read_bytes()))
    shutil.rmtree(folder)
    opened = ckptc.open(path)
    check(opened, "model_weights/")
    assert {entry.window.path == str(path) for entry in opened.entries} == {not packed}
    assert opened.side_files == ("model_config.yaml", ARTIFACT)
    assert opened.config("model_config.yaml")["hidden_size"] == 16
    assert opened.artifact(f"nemo:{ARTIFACT}") == b"pieces"


def test_a_blob_that_ends_beyond_its_member_is_refused(tmp_path: Path) -> None:
    """Behind it in the archive there are bytes, which are another member's."""
    folder = save(tmp_path / "saved")
    blobs = next(folder.glob("*.distcp"))
    members = {f"model_weights/{f.name}": f.read_bytes() for f in sorted(folder.iterdir())}
    members[f"model_weights/{blobs.name}"] = blobs.read_bytes()[:1000]
    with pytest.raises(Fault) as caught:
        ckptc.open(pack(tmp_path / "x.nemo", {**members, "last": b"\0" * 4096}))
    assert caught.value.code in ("truncated-file", "bad-torch-zip")


@pytest.mark.parametrize(
    ("folders", "tracker", "tag"),
    [
        (["iter_0000007"], "7", "iter_0000007"),
        (["iter_0000007", "iter_0000010", "release"], "7\n", "iter_0000007"),
        (["iter_0000007", "release"], "release", "release"),
        (["iter_0000007", "iter_0000010", "release"], None, "iter_0000010"),
        (["iter_9999999", "iter_10000000"], None, "iter_10000000"),
        (["release"], None, "release"),
    ],
)
def test_a_run_is_read_at_the_iteration_that_its_tracker_names(tmp_path: Path, folders: list[str], tracker: str | None, tag: str) -> None:
    for name in folders:
        save(tmp_path / name, own=torch.full((3,), float(folders.index(name))))
    if tracker is not None:
        (tmp_path / "latest_checkpointed_iteration.txt").write_text(tracker)
    opened = ckptc.open(tmp_path)
    assert opened.tag == tag
    assert opened["own"].read().tolist() == [folders.index(tag)] * 3
    assert ckptc.open(tmp_path / folders[0]).tag == ""


def test_the_tracker_of_ranks_is_followed_too(tmp_path: Path) -> None:
    for number, iteration in enumerate(("iter_0000001", "iter_0000002")):
        (tmp_path / iteration / "mp_rank_00").mkdir(parents=True)
        torch.save({"model": {"w": torch.full((2,), float(number))}}, tmp_path / iteration / "mp_rank_00" / "model_optim_rng.pt")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("1")
    opened = ckptc.open(tmp_path)
    assert (opened.format, opened.tag) == ("pt", "iter_0000001")
    assert opened["w"].read().tolist() == [0, 0]


@pytest.mark.parametrize(("said", "code"), [("8", "missing-file"), ("../iter_0000007", "bad-tracker"), ("", "bad-tracker"), ("\xff", "bad-tracker")])
def test_a_tracker_that_names_no_iteration_is_refused(tmp_path: Path, said: str, code: str) -> None:
    save(tmp_path / "iter_0000007")
    (tmp_path / "latest_checkpointed_iteration.txt").write_text(said, encoding="latin-1")
    with pytest.raises(Fault) as caught:
        ckptc.open(tmp_path)
    assert caught.value.code == code


def test_many_parts_by_index_are_found_in_one_pass(tmp_path: Path) -> None:
    values = torch.arange(3 * 4 * 5 * 6, dtype=torch.int32).reshape(3, 4, 5, 6)
    chunks, stored = [], {}
    file = tmp_path / "__0_0.distcp"
    with file.open("wb") as blobs:
        for layer, expert, row in product(range(3), (0, 2), (0, 2)):
            rows = 2 if row == 0 else 3
            at, offset = blobs.tell(), torch.Size([layer, expert, row, 0])
            torch.save(values[layer : layer + 1, expert : expert + 2, row : row + rows].clone(), file.with_name("one"))
            blobs.write(file.with_name("one").read_bytes())
            chunks.append(ChunkStorageMetadata(offset, torch.Size([1, 2, rows, 6])))
            stored[MetadataIndex("w", offset)] = _StorageInfo(file.name, at, blobs.tell() - at)
    kind = TensorStorageMetadata(TensorProperties(dtype=torch.int32), values.size(), chunks)
    (tmp_path / ".metadata").write_bytes(pickle.dumps(Metadata({"w": kind}, None, stored)))
    window = ckptc.open(tmp_path).entries[0].window
    for axes in range(5):
        parts = along(window, axes)
        assert list(parts) == list(product(*map(range, values.shape[:axes])))
        for index, part in parts.items():
            assert part == at_index(window, index)
            assert torch.equal(read_window.read_window(part), values[index] if axes else values)
