"""Torch files that are laid out here are those that torch.save writes."""

from __future__ import annotations

import pickletools
import shutil
import subprocess
import zipfile
import zlib
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptc.runtime.checkpoint.checkpoint import open_checkpoint
from ckptc.runtime.fault import Fault
from ckptc.runtime.files.file_layout import FileLayout
from ckptc.runtime.formats.torch.zip_write import lay_out as lay_out_torch_zip
from tests.write_file import write_file


def described(tensors: dict[str, torch.Tensor]) -> list[tuple[str, str, tuple[int, ...]]]:
    return [(name, str(t.dtype).removeprefix("torch."), tuple(t.shape)) for name, t in tensors.items()]


def without_identity(path: Path) -> tuple[bytes, list[tuple[object, ...]]]:
    """The file's bytes with serialization_id and both copies of its checksum blanked, and its directory."""
    raw = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    last = next(info for info in members if info.filename.endswith(".data/serialization_id"))
    for at in (raw.rfind(b"PK\7\10", 0, raw.find(b"PK\1\2")) - 40, raw.rfind(b"PK\1\2") + 16):
        length = 48 if at < raw.find(b"PK\1\2") else 4
        raw[at : at + length] = bytes(length)
    return bytes(raw), [
        (m.filename, m.header_offset, m.file_size, m.CRC * (m is not last), m.flag_bits) for m in members
    ]


def check_equal(tmp_path: Path, tensors: dict[str, torch.Tensor], as_bytes) -> None:
    ours, theirs = tmp_path / "ours" / "w.pt", tmp_path / "theirs" / "w.pt"
    ours.parent.mkdir(exist_ok=True)
    theirs.parent.mkdir(exist_ok=True)
    layout = lay_out_torch_zip(described(tensors), "w")
    write_file(ours, layout, map(as_bytes, tensors.values()))
    torch.save(tensors, theirs)
    assert ours.stat().st_size == layout.size
    with zipfile.ZipFile(ours) as archive, zipfile.ZipFile(theirs) as reference:
        assert archive.testzip() is None
        assert pickletools.optimize(archive.read("w/data.pkl")) == pickletools.optimize(reference.read("w/data.pkl"))
    for mmap in (False, True):
        loaded = torch.load(ours, weights_only=True, mmap=mmap)
        assert list(loaded) == list(tensors)
        for name, tensor in tensors.items():
            assert loaded[name].dtype == tensor.dtype
            assert loaded[name].shape == tensor.shape
            assert as_bytes(loaded[name]) == as_bytes(tensor)
    assert without_identity(ours) == without_identity(theirs)
    if tensors:
        for tensor in open_checkpoint(ours):
            assert as_bytes(tensor.read()) == as_bytes(tensors[tensor.name])


def test_a_file_of_every_dtype_is_torchs_own_byte_for_byte(tmp_path, every_dtype, as_bytes):
    check_equal(tmp_path, every_dtype, as_bytes)


def test_scalars_and_empty_tensors_and_many_axes_are_torchs_own_byte_for_byte(tmp_path, as_bytes):
    tensors = {
        "scalar": torch.tensor(3.5), "empty": torch.empty(0), "empty.matrix": torch.empty(4, 0, 3),
        "five": torch.arange(2 * 3 * 4 * 5 * 6).reshape(2, 3, 4, 5, 6), "fp8": torch.zeros(0, dtype=torch.float8_e5m2),
        "long": torch.zeros(70_000, dtype=torch.int8), "größe": torch.ones(1),
    }  # fmt: skip
    check_equal(tmp_path, tensors, as_bytes)


@pytest.mark.parametrize("count", [0, 1, 2, 999, 1000, 1001, 2000, 2001])
def test_any_number_of_tensors_is_pickled_as_torch_does(tmp_path, count, as_bytes):
    check_equal(tmp_path, {f"layer.{i}": torch.full((2,), i) for i in range(count)}, as_bytes)


@given(
    st.lists(
        st.tuples(st.sampled_from(["float32", "bfloat16", "uint16", "bool"]), st.lists(st.integers(0, 300), max_size=2))
    )
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_shapes_give_torchs_own_file(tmp_path, as_bytes, drawn):
    made = {f"w{i}": torch.zeros(shape, dtype=getattr(torch, dtype)) for i, (dtype, shape) in enumerate(drawn)}
    check_equal(tmp_path, made, as_bytes)


def test_payloads_are_aligned_and_the_identity_depends_on_data_alone():
    layout = lay_out_torch_zip([("a", "int8", (3,)), ("b", "float32", (5, 7))], "x")
    assert all(region.at % 64 == 0 for region in layout.regions)
    assert layout.tail([1, 2]) == layout.tail([1, 2])
    assert layout.tail([1, 2]) != layout.tail([1, 3])


def test_a_stem_that_is_no_folder_name_becomes_archive(tmp_path, as_bytes):
    write_file(tmp_path / "ü.pt", lay_out_torch_zip([("a", "int8", (2,))], "ü"), [b"ab"])
    assert zipfile.ZipFile(tmp_path / "ü.pt").namelist()[0] == "archive/data.pkl"
    assert as_bytes(torch.load(tmp_path / "ü.pt", weights_only=True)["a"]) == b"ab"


def test_a_name_that_occurs_twice_is_a_fault():
    with pytest.raises(Fault, match="duplicate-tensor"):
        lay_out_torch_zip([("a", "int8", (2,)), ("a", "int8", (2,))], "x")


def test_a_failed_write_leaves_nothing(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"before")
    with pytest.raises(Fault, match="wrong-size"):
        write_file(tmp_path / "a.pt", lay_out_torch_zip([("a", "int8", (2,))], "a"), [b"abc"])
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.pt", b"before")]


@pytest.mark.skipif(shutil.which("unzip") is None, reason="there is no unzip")
def test_unzip_finds_no_fault(tmp_path, every_dtype, as_bytes):
    write_file(tmp_path / "a.pt", lay_out_torch_zip(described(every_dtype), "a"), map(as_bytes, every_dtype.values()))
    subprocess.run(["unzip", "-tq", tmp_path / "a.pt"], check=True, capture_output=True)


def write_sparse(path: Path, layout: FileLayout, filled: dict[int, bytes]) -> None:
    """Writes all but the data, except for the `filled` regions; checksums of the rest are left at zero."""
    crcs = []
    with path.open("wb") as stream:
        for i, region in enumerate(layout.regions):
            stream.write(region.lead)
            assert stream.tell() == region.at
            stream.write(filled.get(i, b""))
            stream.seek(region.at + region.nbytes)
            crcs.append(zlib.crc32(filled[i]) if i in filled else 0)
            stream.write(layout.trail(i, crcs[-1]))
        stream.write(layout.tail(crcs))
        assert stream.tell() == layout.size
    if path.stat().st_blocks * 512 > 1 << 28:
        pytest.skip("the file system has no sparse files")


def test_records_and_offsets_beyond_4_gib_are_found_by_torch_and_zipfile(tmp_path):
    gib = 1 << 30
    tensors = [
        ("first", "int8", (16,)), ("big", "uint8", (5, gib)), ("after", "float32", (4,)),
        ("exact", "uint8", ((1 << 32) - 1,)), ("empty", "int16", (0,)), ("last", "int8", (3,)),
    ]  # fmt: skip
    filled = {0: bytes(range(16)), 2: bytes(range(16)), 4: b"", 5: b"xyz"}
    path = tmp_path / "huge.pt"
    write_sparse(path, lay_out_torch_zip(tensors, "huge"), filled)
    with zipfile.ZipFile(path) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        assert sizes["huge/data/1"] == 5 * gib
        assert sizes["huge/data/3"] == (1 << 32) - 1
        for i, data in filled.items():
            assert archive.read(f"huge/data/{i}") == data
    loaded = torch.load(path, weights_only=True, mmap=True)
    assert [tuple(t.shape) for t in loaded.values()] == [shape for _, _, shape in tensors]
    for i, name in ((0, "first"), (2, "after"), (5, "last")):
        assert loaded[name].view(torch.uint8).numpy().tobytes() == filled[i]
    del loaded
    opened = open_checkpoint(path)
    assert opened["last"].read().numpy().tobytes() == b"xyz"
    assert opened["after"].read().numpy().tobytes() == filled[2]


def test_more_records_than_16_bits_count_are_found_by_torch_and_zipfile(tmp_path):
    tensors = [(f"w.{i}", "int8", (1,)) for i in range(65_600)]
    path = tmp_path / "many.pt"
    write_file(path, lay_out_torch_zip(tensors, "many"), (bytes([i % 251]) for i in range(len(tensors))))
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == len(tensors) + 6
    loaded = torch.load(path, weights_only=True)
    assert loaded["w.65599"].item() == torch.tensor(65_599 % 251, dtype=torch.uint8).view(torch.int8).item()
    assert len(open_checkpoint(path)) == len(tensors)
