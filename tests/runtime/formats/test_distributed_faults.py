"""Distributed checkpoints that are damaged or unfinished are refused by name, with what to do."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import MetadataIndex

import ckptc
from ckptc.runtime.fault import Fault
from ckptc.runtime.files.indexed import by_index

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
        ({"compressor": {"id": "blosc"}}, "compressed-array"), ({"filters": [{"id": "delta"}]}, "compressed-array"), ({"compressor": []}, "compressed-array"),
        ({"dtype": ">f4"}, "big-endian"), ({"dtype": ["<f4"]}, "unknown-dtype"), ({"dtype": [["a", "<f4"]]}, "unknown-dtype"), ({"dtype": {"a": 1}}, "unknown-dtype"),
        ({"dtype": "<c8"}, "unknown-dtype"), ({"dtype": None}, "unknown-dtype"),
        ({"zarr_format": 3}, "bad-metadata"), ({"zarr_format": [2]}, "bad-metadata"), ({"chunks": [0]}, "bad-metadata"), ({"chunks": {"a": 4}}, "bad-metadata"),
        ({"shape": "7"}, "bad-metadata"), ({"shape": [[7]]}, "bad-metadata"), ({"shape": [7.0]}, "bad-metadata"), ({"shape": [True]}, "bad-metadata"),
        ({"shape": [-7]}, "bad-metadata"), ({"shape": [7, 1]}, "bad-metadata"), ({"shape": [1 << 63]}, "bad-metadata"), ({"shape": [10**400]}, "bad-metadata"),
        ({"shape": [1] * 65, "chunks": [1] * 65}, "bad-metadata"), ({"order": ["C"]}, "bad-metadata"), ({"order": "A"}, "bad-metadata"),
        ({"dimension_separator": "-"}, "bad-metadata"), ({"dimension_separator": ["."]}, "bad-metadata"),
        ({"chunks": [2]}, "truncated-file"), ({"chunks": [1 << 62]}, "truncated-file"), ({"shape": [9]}, "missing-file"),
        ({"shape": [10**9]}, "missing-file"), ({"shape": [10**6, 10**6], "chunks": [1, 1]}, "missing-file"), ({"shape": [9], "fill_value": 0}, "missing-file"),
    ],
)  # fmt: skip
def test_arrays_that_are_not_plain_are_refused(tmp_path: Path, said: dict[str, Any], code: str) -> None:
    found = fault(zarr(tmp_path / "z", **said))
    assert found.code == code
    assert "norm/" in found.title


@pytest.mark.parametrize("text", [b"", b"[]", b"7", b"\xff", b"[" * 100_000, b'{"zarr_format": 2, "shape": [' + b"9" * 5000 + b"]}"])
def test_descriptions_that_are_none_are_refused(tmp_path: Path, text: bytes) -> None:
    folder = zarr(tmp_path / "z")
    (folder / "norm/.zarray").write_bytes(text)
    assert fault(folder).code == "bad-metadata"


def test_zarr_version_3_is_named(tmp_path: Path) -> None:
    folder = zarr(tmp_path / "z")
    (folder / "norm/.zarray").rename(folder / "norm/zarr.json")
    found = fault(folder)
    assert found.code == "unknown-format"
    assert "version 3" in found.title


def test_numbers_that_a_description_says_take_no_memory(tmp_path: Path) -> None:
    """Each is held against the files that are there before anything is listed."""
    lies: list[dict[str, Any]] = [{"shape": [1 << 40], "chunks": [1]}, {"shape": [1 << 30, 1 << 30], "chunks": [3, 5]}, {"shape": [0, 1 << 60], "chunks": [1, 1]}]
    for number, said in enumerate(lies):
        folder = zarr(tmp_path / str(number), **said)
        tracemalloc.start()
        with suppress(Fault):
            ckptc.open(folder)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < 4 << 20


def test_a_stack_of_no_elements_is_not_taken_apart(tmp_path: Path) -> None:
    folder = zarr(tmp_path / "z", shape=[1 << 40, 0], chunks=[1, 1])
    entries = ckptc.open(folder).entries
    with pytest.raises(Fault, match="bad-shape"):
        by_index(entries, ["norm[{layer}]"])


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m.state_dict_metadata.update({7: m.state_dict_metadata["norm"]}),
        lambda m: m.state_dict_metadata.update({"norm\ud800": m.state_dict_metadata["norm"]}),
        lambda m: setattr(m.state_dict_metadata["norm"], "size", (1,) * 5000),
        lambda m: setattr(m.state_dict_metadata["norm"], "size", (1 << 90,)),
        lambda m: setattr(m.state_dict_metadata["norm"], "size", [11]),
        lambda m: setattr(m.state_dict_metadata["norm"], "chunks", 3),
        lambda m: setattr(m, "storage_data", [1]),
        lambda m: [setattr(info, "relative_path", "a\ud800") for info in m.storage_data.values()],
        lambda m: [setattr(info, "offset", 1 << 62) for info in m.storage_data.values()],
        lambda m: [setattr(info, "length", -1) for info in m.storage_data.values()],
        lambda m: [setattr(info, "relative_path", "a" * 5000) for info in m.storage_data.values()],
    ],
    ids=range(11),
)
def test_metadata_that_lies_is_a_fault(saved: Path, edit: Callable[[Any], Any]) -> None:
    change(saved, edit)
    assert fault(saved).code in ("bad-metadata", "bad-pickle", "truncated-file", "missing-file")
