"""Hostile, damaged and lying torch files give a fault, and nothing in them runs."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptc.runtime.checkpoint.checkpoint import open_checkpoint
from ckptc.runtime.fault import Fault
from ckptc.runtime.formats.torch.pickle_read import read_pickle

from .bomb import Bomb, nothing_runs  # noqa: F401 (a fixture)


class Eval:
    def __reduce__(self):
        return eval, ("1 + 1",)


@pytest.fixture
def saved(tmp_path) -> Path:
    whole = torch.arange(40.0).reshape(5, 8)
    torch.save({"a": whole, "b": whole.t(), "c": torch.zeros(3, dtype=torch.float8_e5m2), "n": 1}, tmp_path / "s.pt")
    return tmp_path / "s.pt"


UNSAFE = {
    "a reduce of os.mkdir": pickle.dumps({"a": Bomb()}, protocol=2),
    "a reduce by stack global": pickle.dumps({"a": Bomb()}, protocol=4),
    "builtins.eval": pickle.dumps(Eval(), protocol=2),
    "an unknown global": b"\x80\x02cnowhere\nNothing\n.",
    "an unknown stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93.",
    "INST": b"(S'echo'\nios\nsystem\n.".replace(b"S'echo'\n", b"V1\n"),
    "OBJ": b"(cos\nsystem\nV1\no.",
    "a global hidden by POP": b"\x80\x02cos\nsystem\n0}.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "getattr": b"\x80\x02cbuiltins\ngetattr\n.",
    "a dotted name": b"\x80\x04\x8c\x05torch\x8c\x0eTensor.__new__\x93.",
    "torch.load": b"\x80\x02ctorch\nload\n.",
    "storage from bytes": b"\x80\x02ctorch.storage\n_load_from_bytes\n.",
}


@pytest.mark.parametrize("pickled", UNSAFE.values(), ids=UNSAFE.keys())
def test_a_global_off_the_list_is_named_and_nothing_runs(with_pickle, pickled):
    with pytest.raises(Fault) as fault:
        open_checkpoint(with_pickle(pickled))
    assert fault.value.code == "unsafe-pickle"
    assert "hostile.pt" in fault.value.title
    assert "nothing was imported or run" in fault.value.notes


DAMAGED = {
    "an empty pickle": b"",
    "no stop": b"\x80\x02}",
    "an empty stack": b".",
    "a lone mark": b"(.",
    "a call of a dict": b"\x80\x02})R.",
    "a call of a text": b"\x80\x02X\x01\x00\x00\x00a)R.",
    "a call of a dtype": b"\x80\x02ctorch\nfloat32\n)R.",
    "a call of a class": b"\x80\x02ctorch\nFloatStorage\n)\x81.",
    "items for a text": b"\x80\x02X\x01\x00\x00\x00aK\x01K\x02s.",
    "items for a tuple": b"\x80\x02)K\x01a.",
    "state for a text": b"\x80\x02X\x01\x00\x00\x00a}b.",
    "state for a global": b"\x80\x02ctorch\nfloat32\n}b.",
    "a text longer than memory": b"\x80\x04\x8d" + b"\xff" * 8 + b"a.",
    "bytes longer than memory": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",
    "an unknown memo": b"\x80\x02h\x07.",
    "a far memo": b"\x80\x02}r\xff\xff\xff\xffh\x00.",
    "a key that cannot be hashed": b"\x80\x02}}K\x01s.",
    "a key that is slow to hash": b"\x80\x02})" + b"2\x86" * 5000 + b"K\x01s.",
    "a persistent id of text": b"\x80\x02X\x01\x00\x00\x00aQ.",
    "a persistent id as a line": b"Pa\n.",
    "a number that is none": b"Iabc\n.",
    "a number too long": b"I" + b"9" * 10000 + b"\n.",
    "a text that is not UTF-8": b"\x80\x02X\x02\x00\x00\x00\xff\xfe.",
    "an odd number of items": b"\x80\x02}(K\x01u.",
    "an unknown opcode": b"\x80\x02\xff.",
    "a list": b"\x80\x02].",
    "a type in a type": b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\nq\x00(h\x00ctorch\nTensor\n)}tR.",
    "protocol 9": b"\x80\x09}.",
}


@pytest.mark.parametrize("pickled", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_pickle_is_a_fault(with_pickle, pickled):
    with pytest.raises(Fault, match="bad-pickle"):
        open_checkpoint(with_pickle(pickled))


@given(st.lists(st.sampled_from([bytes([i]) for i in range(256)]) | st.binary(max_size=4), max_size=40))
@settings(max_examples=400)
def test_any_bytes_as_a_pickle_give_an_object_or_a_fault(parts):
    for strays in (None, []):
        with suppress(Fault):
            read_pickle(b"\x80\x02" + b"".join(parts), "x.pt", strays)


def tensor_pickle(numel=6, offset=0, shape=(2, 3), strides=(3, 1), key="0") -> bytes:
    """The pickle of {"a": tensor} with whatever it is told to say."""

    def number(value: int) -> bytes:
        return b"\x8a\x09" + value.to_bytes(9, "little", signed=True)

    def numbers(values) -> bytes:
        return b"(" + b"".join(map(number, values)) + b"t"

    return (
        b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X" + struct.pack("<I", len(key)) + key.encode() + b"X\x03\x00\x00\x00cpu" + number(numel) + b"tQ"
        + number(offset) + numbers(shape) + numbers(strides) + b"\x89}tRs."
    )  # fmt: skip


LIES = {
    "a numel beyond the record": {"numel": 7},
    "a numel below the record": {"numel": 5, "shape": (5,), "strides": (1,)},
    "an offset beyond the record": {"offset": 1},
    "a huge offset": {"offset": (1 << 63) - 1},
    "a shape beyond the record": {"shape": (3, 3)},
    "a stride beyond the record": {"strides": (4, 1)},
    "a negative stride": {"strides": (3, -1)},
    "a negative offset": {"offset": -1},
    "a negative size": {"shape": (-2, 3)},
    "sizes without strides": {"strides": ()},
    "a record that is missing": {"key": "1"},
    "a record elsewhere": {"key": "../data.pkl"},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_tensor_that_does_not_lie_in_its_record_is_a_fault(with_pickle, lie):
    data = {"data/0": bytes(24)}
    assert len(open_checkpoint(with_pickle(tensor_pickle(), data))) == 1
    with pytest.raises(Fault, match="bad-pickle"):
        open_checkpoint(with_pickle(tensor_pickle(**lie), data))


def test_a_file_cut_anywhere_is_a_fault(saved, tmp_path):
    whole = saved.read_bytes()
    cut = tmp_path / "cut.pt"
    for length in range(0, len(whole), 97):
        cut.write_bytes(whole[:length])
        with pytest.raises(Fault, match="bad-torch-zip"):
            open_checkpoint(cut)


@given(st.data())
@settings(max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_flipped_bytes_give_a_fault_or_a_checkpoint(saved, tmp_path, data):
    raw = bytearray(saved.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "flipped.pt").write_bytes(raw)
    with suppress(Fault):
        for tensor in open_checkpoint(tmp_path / "flipped.pt"):
            tensor.read()


def rezipped(saved: Path, compression=zipfile.ZIP_STORED, **changed: bytes) -> Path:
    made = saved.with_name("rezipped.pt")
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(made, "w", compression) as target:
        for name in source.namelist():
            target.writestr(name, changed.get(name.partition("/")[2], source.read(name)))
    return made


def test_a_compressed_record_is_a_fault_that_tells_how_to_save_again(saved):
    with pytest.raises(Fault, match="compressed-record") as fault:
        open_checkpoint(rezipped(saved, zipfile.ZIP_DEFLATED))
    assert "torch.save" in fault.value.help
    assert len(open_checkpoint(rezipped(saved))) == 3


def test_a_big_endian_file_is_a_fault(saved):
    with pytest.raises(Fault, match="big-endian"):
        open_checkpoint(rezipped(saved, byteorder=b"big"))


def test_a_record_that_occurs_twice_is_a_fault(saved):
    with zipfile.ZipFile(saved, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("s/data/0", bytes(160))
    with pytest.raises(Fault, match="occurs twice"):
        open_checkpoint(saved)


def test_records_that_overlap_are_a_fault(saved):
    raw = bytearray(saved.read_bytes())
    first, second = (raw.rfind(b"PK\1\2", 0, raw.rfind(name)) for name in (b"s/data/0", b"s/data/1"))
    raw[second + 42 : second + 46] = raw[first + 42 : first + 46]
    saved.write_bytes(raw)
    with pytest.raises(Fault, match="bad-torch-zip"):
        open_checkpoint(saved)


def test_an_encrypted_record_is_a_fault(saved):
    raw = bytearray(saved.read_bytes())
    raw[raw.find(b"PK\1\2") + 8] |= 1
    saved.write_bytes(raw)
    with pytest.raises(Fault, match="encrypted"):
        open_checkpoint(saved)


def test_torchs_old_format_is_a_fault_that_tells_how_to_save_again(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(Fault, match="legacy-torch-file") as fault:
        open_checkpoint(tmp_path / "old.pt")
    assert "torch.save(torch.load(p, weights_only=True), p)" in fault.value.help


def test_a_torchscript_program_is_a_fault(with_pickle):
    with pytest.raises(Fault, match="torchscript-file"):
        open_checkpoint(with_pickle(b"\x80\x02}.", {"constants.pkl": b"\x80\x02)."}))


@pytest.mark.parametrize(
    "state",
    [b"}X\x03\0\0\0tidX\x01\0\0\0as", b"}X\x03\0\0\0tidJ\xff\xff\xff\xffs", b"}(X\x03\0\0\0tidK\0X\x01\0\0\0aK\0u", b"K\0"],
    ids=["a text", "below zero", "more than a number", "no attributes"],
)
def test_a_reference_to_another_file_has_a_number_and_nothing_else(state, with_pickle):
    reference = b"ctorch_xla.utils.serialization\nTensorReference\n)\x81" + state + b"b"
    with pytest.raises(Fault, match="bad-pickle"):
        open_checkpoint(with_pickle(b"\x80\x02}X\x01\0\0\0w" + reference + b"s."))


def test_a_zip_that_is_no_torch_file_is_a_fault(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/b", "c")
    (tmp_path / "a.pt").write_bytes(buffer.getvalue())
    with pytest.raises(Fault, match=r"data\.pkl"):
        open_checkpoint(tmp_path / "a.pt")
