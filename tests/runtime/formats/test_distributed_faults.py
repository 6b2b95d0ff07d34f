"""Distributed checkpoints that are damaged or unfinished are refused by name, with what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import MetadataIndex

import ckptc
from ckptc.runtime.fault import Fault

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
VALUES = {"decoder.layers.w": torch.arange(3 * 5 * 7.0).reshape(3, 5, 7), "norm": torch.arange(11.0), "optimizer.state.w": torch.ones(2)}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """What torch itself saves; a name of the optimizer's is no tensor of the model."""
    folder = tmp_path / "saved"
    dcp.save(dict(VALUES), checkpoint_id=folder, no_dist=True)
    return folder


def change(folder: Path, edit: Callable[[Any], None]) -> None:
    """Writes `.metadata` again, changed."""
    import pickle

    metadata = FileSystemReader(folder).read_metadata()
    edit(metadata)
    (folder / ".metadata").write_bytes(pickle.dumps(metadata))


def fault(folder: Path) -> Fault:
    with pytest.raises(Fault) as caught:
        ckptc.open(folder)
    return caught.value


def test_what_torch_saves_without_megatron_is_read(saved: Path) -> None:
    checkpoint = ckptc.open(saved)
    assert checkpoint.format == "torch_dist"
    assert {t.name for t in checkpoint} == {"decoder.layers.w", "norm"}
    assert all(torch.equal(t.read(), VALUES[t.name]) for t in checkpoint)
    assert ("", "optimizer.state.w") in checkpoint.others


def test_a_part_that_is_not_there_is_named(saved: Path) -> None:
    change(saved, lambda m: m.state_dict_metadata["decoder.layers.w"].chunks.clear())
    found = fault(saved)
    assert found.code == "incomplete-tensor"
    assert "decoder.layers.w" in found.title
    assert "105" in found.title


def test_parts_that_overlap_are_named_though_they_are_large_enough(tmp_path: Path) -> None:
    """Of [4, 5], 2 x 5 elements are there twice, and as many not at all."""
    blobs = {}
    for file in ("a", "b"):
        dcp.save({"w": torch.ones(2, 5)}, checkpoint_id=tmp_path / file, no_dist=True)
        (info,) = FileSystemReader(tmp_path / file).read_metadata().storage_data.values()
        blobs[file] = info
    folder = tmp_path / "a"
    (tmp_path / "b" / blobs["b"].relative_path).rename(folder / "other.distcp")
    blobs["b"].relative_path = "other.distcp"

    def edit(metadata: Any, at: list[int]) -> None:
        kind = metadata.state_dict_metadata["w"]
        kind.size = torch.Size([4, 5])
        first = kind.chunks[0]
        kind.chunks[:] = [first, type(first)(torch.Size(at), torch.Size([2, 5]))]
        metadata.storage_data = {
            MetadataIndex("w", torch.Size(place)): info for place, info in (([0, 0], blobs["a"]), (at, blobs["b"]))
        }

    change(folder, lambda m: edit(m, [2, 0]))
    assert ckptc.open(folder)["w"].shape == (4, 5)
    change(folder, lambda m: edit(m, [1, 0]))
    found = fault(folder)
    assert found.code == "incomplete-tensor"
    assert "[2, 5] at [0, 0]" in found.title
    assert "[2, 5] at [1, 0]" in found.title


def test_a_part_beyond_the_tensor_is_named(saved: Path) -> None:
    def edit(metadata: Any) -> None:
        metadata.state_dict_metadata["norm"].size = torch.Size([10])

    change(saved, edit)
    assert fault(saved).code == "bad-metadata"


def test_another_dtype_than_is_stored_is_found(saved: Path) -> None:
    def edit(metadata: Any) -> None:
        metadata.state_dict_metadata["norm"].properties.dtype = torch.int32

    change(saved, edit)
    found = fault(saved)
    assert found.code == "bad-metadata"
    assert "float32" in found.title


@pytest.mark.parametrize("path", ["../__0_0.distcp", "/etc/passwd"])
def test_files_elsewhere_are_refused(saved: Path, path: str) -> None:
    def edit(metadata: Any) -> None:
        for info in metadata.storage_data.values():
            info.relative_path = path

    change(saved, edit)
    assert fault(saved).code == "bad-metadata"


def test_a_file_that_is_missing_or_short_is_named(saved: Path) -> None:
    file = next(saved.glob("*.distcp"))
    file.write_bytes(file.read_bytes()[:700])
    assert fault(saved).code in ("truncated-file", "bad-torch-zip")
    file.unlink()
    found = fault(saved)
    assert found.code == "missing-file"
    assert file.name in found.title


@pytest.mark.parametrize("data", [b"", b"\x80\x04.", b"\x80\x04]\x94.", b"cos\nsystem\n(S'true'\ntR."])
def test_other_pickles_are_refused(saved: Path, data: bytes) -> None:
    (saved / ".metadata").write_bytes(data)
    assert fault(saved).code in ("bad-pickle", "bad-metadata", "unsafe-pickle")


def test_an_unknown_backend_is_refused(saved: Path) -> None:
    (saved / "metadata.json").write_text(json.dumps({"sharded_backend": "tensorstore"}))
    assert fault(saved).code == "unknown-format"


def zarr(folder: Path, **said: Any) -> Path:
    array = folder / "norm"
    array.mkdir(parents=True)
    described = {"chunks": [4], "compressor": None, "dtype": "<f4", "fill_value": None, "filters": None, "order": "C", "shape": [7], "zarr_format": 2}
    (array / ".zarray").write_text(json.dumps(described | said))
    torch.arange(4.0).numpy().tofile(array / "0")
    torch.tensor([4.0, 5.0, 6.0, -1.0]).numpy().tofile(array / "1")
    (folder / "metadata.json").write_text(json.dumps({"sharded_backend": "zarr"}))
    return folder


def test_the_last_chunk_of_an_array_is_longer_than_what_counts(tmp_path: Path) -> None:
    assert torch.equal(ckptc.open(zarr(tmp_path / "z"))["norm"].read(), torch.arange(7.0))


def test_chunks_may_be_files_in_folders(tmp_path: Path) -> None:
    folder = zarr(tmp_path / "z", dimension_separator="/", chunks=[2, 2], shape=[3, 2])
    values = torch.arange(6.0).reshape(3, 2)
    for name in ("0", "1"):
        (folder / "norm" / name).unlink()
        (folder / "norm" / name).mkdir()
    values[:2].numpy().tofile(folder / "norm" / "0" / "0")
    torch.cat([values[2:], torch.full((1, 2), -1.0)]).numpy().tofile(folder / "norm" / "1" / "0")
    assert torch.equal(ckptc.open(folder)["norm"].read(), values)


def test_state_and_objects_of_a_zarr_checkpoint_are_no_tensors(tmp_path: Path) -> None:
    folder = zarr(tmp_path / "z")
    (folder / "norm").rename(folder / "optimizer.state.exp_avg.norm")
    zarr(tmp_path / "z")
    (folder / "fc._extra_state").mkdir()
    torch.save([None], folder / "fc._extra_state" / "shard_0_4.pt")
    torch.save({}, folder / "common.pt")
    opened = ckptc.open(folder)
    assert [t.name for t in opened] == ["norm"]
    assert opened.others == (("", "optimizer.state.exp_avg.norm"), ("", "fc._extra_state/shard_0_4.pt"))
    assert opened.side_files == ()


@pytest.mark.parametrize(
    ("said", "code"),
    [
        ({"compressor": {"id": "blosc"}}, "compressed-array"), ({"order": "F"}, "compressed-array"), ({"dtype": ">f4"}, "unknown-dtype"),
        ({"zarr_format": 3}, "bad-metadata"), ({"chunks": [0]}, "bad-metadata"), ({"chunks": [2]}, "truncated-file"), ({"shape": [9]}, "missing-file"),
    ],
)  # fmt: skip
def test_arrays_that_are_not_plain_are_refused(tmp_path: Path, said: dict[str, Any], code: str) -> None:
    assert fault(zarr(tmp_path / "z", **said)).code == code
