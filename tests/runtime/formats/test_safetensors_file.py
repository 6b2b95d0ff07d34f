"""safetensors files are read and written as the safetensors library does, and damaged ones give faults."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptc.runtime.checkpoint.checkpoint import open_checkpoint
from ckptc.runtime.fault import Fault
from ckptc.runtime.formats.huggingface.safetensors_read import read_safetensors
from ckptc.runtime.formats.huggingface.safetensors_write import lay_out_safetensors
from tests.write_file import write_file


@pytest.fixture
def tensors(every_dtype):
    made = {name: tensor for name, tensor in every_dtype.items() if tensor.dtype != torch.complex128}
    return {**made, "scalar": torch.tensor(1.5), "empty": torch.empty(0, 3), "größe": torch.ones(4, dtype=torch.int64)}


def test_the_librarys_files_are_read(tmp_path, tensors, as_bytes):
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors", metadata={"format": "pt", "k": "v"})
    opened = open_checkpoint(tmp_path / "a.safetensors")
    assert opened.format == "safetensors"
    assert {tensor.name for tensor in opened} == set(tensors)
    for tensor in opened:
        read = tensor.read()
        assert read.dtype == tensors[tensor.name].dtype
        assert read.shape == tensors[tensor.name].shape
        assert as_bytes(read) == as_bytes(tensors[tensor.name])
    header = read_safetensors(str(tmp_path / "a.safetensors"), "a.safetensors")
    assert dict(header.metadata) == {"format": "pt", "k": "v"}


def test_files_laid_out_here_are_read_by_the_library(tmp_path, tensors, as_bytes):
    described = [(name, str(t.dtype)[6:], tuple(t.shape)) for name, t in tensors.items()]
    layout = lay_out_safetensors(described)
    path = tmp_path / "a.safetensors"
    write_file(path, layout, map(as_bytes, tensors.values()))
    assert path.stat().st_size == layout.size
    assert layout.regions[0].at % 8 == 0
    assert [entry.name for entry in open_checkpoint(path).entries] == list(tensors)
    loaded = safetensors.torch.load_file(path)
    with safetensors.safe_open(path, "pt") as opened:
        assert opened.metadata() == {"format": "pt"}
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert as_bytes(loaded[name]) == as_bytes(tensor)


def test_an_odd_sized_tensor_before_a_wide_one_is_read_by_the_library(tmp_path):
    path = tmp_path / "a.safetensors"
    write_file(path, lay_out_safetensors([("a", "int8", (3,)), ("b", "float32", (2,))]), [b"abc", bytes(8)])
    assert torch.equal(safetensors.torch.load_file(path)["b"], torch.zeros(2))
    assert torch.equal(open_checkpoint(path)["b"].read(), torch.zeros(2))


def test_a_layout_without_tensors_is_a_whole_file(tmp_path):
    write_file(tmp_path / "a.safetensors", lay_out_safetensors([]), [])
    assert safetensors.torch.load_file(tmp_path / "a.safetensors") == {}


def test_a_dtype_that_safetensors_lacks_is_a_fault():
    with pytest.raises(Fault, match="complex128"):
        lay_out_safetensors([("a", "complex128", (3,))])


def file_of(path, header: object, data: bytes = b"") -> str:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return str(path)


def one(**changed: object) -> dict[str, object]:
    return {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changed}}


BAD = {
    "a header that is no JSON": (b"{nonsense}", b""),
    "a header that is a list": (b"[]", b""),
    "a header in another encoding": (b'{"\xff": 1}', b""),
    "a header nested without end": (b'{"a":' * 50_000, b""),
    "a number without end": (b'{"a":' + b"9" * 9999 + b"}", b""),
    "too few bytes": (one(), bytes(7)),
    "too many bytes": (one(), bytes(9)),
    "a hole at the start": (one(data_offsets=[8, 16]), bytes(16)),
    "offsets that fall": (one(data_offsets=[8, 0]), bytes(8)),
    "a shape that disagrees": (one(shape=[3]), bytes(8)),
    "a negative size": (one(shape=[-1, -2]), bytes(8)),
    "a size that is a truth value": (one(shape=[True, 2]), bytes(8)),
    "a size that is a fraction": (one(shape=[2.0]), bytes(8)),
    "a shape that is a number": (one(shape=2), bytes(8)),
    "three offsets": (one(data_offsets=[0, 4, 8]), bytes(8)),
    "a field too many": (one(extra=1), bytes(8)),
    "a tensor that is a number": ({"a": 1}, b""),
    "overlapping tensors": ({**one(), "b": one()["a"]}, bytes(8)),
    "metadata that is no text": ({"__metadata__": {"a": 1}}, b""),
    "a lone surrogate": ({"\ud800": one()["a"]}, bytes(8)),
}


@pytest.mark.parametrize(("header", "data"), BAD.values(), ids=BAD.keys())
def test_a_header_that_does_not_fit_its_file_is_a_fault(tmp_path, header, data):
    with pytest.raises(Fault, match="bad-safetensors"):
        open_checkpoint(file_of(tmp_path / "a.safetensors", header, data))


@pytest.mark.parametrize("code", ["F4", "F6_E2M3", "f32", 7])
def test_an_unknown_dtype_is_named(tmp_path, code):
    with pytest.raises(Fault, match=str(code)) as fault:
        open_checkpoint(file_of(tmp_path / "a.safetensors", one(dtype=code), bytes(8)))
    assert fault.value.code == "unknown-dtype"


def test_a_name_that_occurs_twice_is_a_fault(tmp_path):
    text = json.dumps(one())
    with pytest.raises(Fault, match="duplicate-tensor"):
        open_checkpoint(file_of(tmp_path / "a.safetensors", f"{text[:-1]},{text[1:]}".encode(), bytes(8)))


@pytest.mark.parametrize("length", [9, 1 << 20, 1 << 27, (1 << 64) - 1])
def test_a_header_longer_than_its_file_is_a_fault(tmp_path, length):
    (tmp_path / "a.safetensors").write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(Fault, match="bad-safetensors"):
        open_checkpoint(tmp_path / "a.safetensors")


def test_a_file_cut_anywhere_is_a_fault(tmp_path, tensors):
    whole = safetensors.torch.save(tensors)
    for length in range(0, len(whole), 7):
        (tmp_path / "cut.safetensors").write_bytes(whole[:length])
        with pytest.raises(Fault, match="bad-safetensors"):
            open_checkpoint(tmp_path / "cut.safetensors")


@given(st.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_flipped_bytes_give_a_fault_or_a_checkpoint(tmp_path, tensors, data):
    raw = bytearray(safetensors.torch.save(tensors))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "flipped.safetensors").write_bytes(raw)
    with suppress(Fault):
        for tensor in open_checkpoint(tmp_path / "flipped.safetensors"):
            tensor.read()
