"""What torch.save writes is read as torch.load reads it."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from ckptc.runtime.checkpoint.checkpoint import open_checkpoint
from ckptc.runtime.fault import Fault


def assert_same(path: Path, expected: dict[str, torch.Tensor], as_bytes) -> None:
    opened = open_checkpoint(path)
    assert [tensor.name for tensor in opened] == list(expected)
    for tensor in opened:
        read, right = tensor.read(), expected[tensor.name]
        assert tensor.shape == tuple(right.shape) == tuple(read.shape)
        assert tensor.dtype == str(right.dtype).removeprefix("torch.")
        assert read.dtype == right.dtype
        assert read.is_contiguous()
        assert as_bytes(read) == as_bytes(right)


def test_every_dtype_is_read_as_torch_loads_it(tmp_path, every_dtype, as_bytes):
    torch.save(every_dtype, tmp_path / "a.pt")
    assert_same(tmp_path / "a.pt", torch.load(tmp_path / "a.pt", weights_only=True), as_bytes)


def test_views_shared_storages_scalars_and_empty_tensors_are_read_as_torch_loads_them(tmp_path, as_bytes):
    whole = torch.arange(3 * 5 * 7, dtype=torch.float32).reshape(3, 5, 7)
    torch.save(
        OrderedDict(
            whole=whole, transposed=whole.transpose(0, 2), sliced=whole[1:, 2:4, ::3], tail=whole.view(-1)[100:],
            scalar=torch.tensor(2.5), view0=whole[2, 4, 6], empty=torch.empty(0, 4), empty_view=whole[3:],
            expanded=torch.arange(4).expand(3, 4), bf16=whole.bfloat16()[:, 1],
            parameter=torch.nn.Parameter(torch.ones(2, 3), requires_grad=True),
            frozen=torch.nn.Parameter(torch.zeros(3), requires_grad=False),
            fp8=whole.to(torch.float8_e4m3fn).transpose(0, 1),
        ),
        tmp_path / "a.pth",
    )  # fmt: skip
    assert_same(tmp_path / "a.pth", torch.load(tmp_path / "a.pth", weights_only=True), as_bytes)


def test_a_modules_state_dict_with_its_metadata_is_read(tmp_path, as_bytes):
    state = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.BatchNorm1d(5)).state_dict()
    torch.save(state, tmp_path / "pytorch_model.bin")
    assert_same(tmp_path / "pytorch_model.bin", state, as_bytes)
    assert open_checkpoint(tmp_path / "pytorch_model.bin").format == "bin"


def test_a_tensor_with_attributes_of_its_own_is_read(tmp_path, as_bytes):
    marked = torch.arange(6.0)
    marked.partition_dim = 0
    parameter = torch.nn.Parameter(torch.arange(4.0))
    parameter.sequence_parallel = True
    torch.save({"marked": marked, "parameter": parameter}, tmp_path / "a.pt")
    assert_same(tmp_path / "a.pt", {"marked": marked, "parameter": parameter}, as_bytes)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_is_read(tmp_path, protocol, as_bytes):
    state = {"a": torch.arange(3.0), "b": torch.arange(300)[None], "c": torch.zeros(2, dtype=torch.float8_e5m2)}
    torch.save(state, tmp_path / "a.pt", pickle_protocol=protocol)
    assert_same(tmp_path / "a.pt", state, as_bytes)


def test_a_bare_tensor_has_an_empty_name(tmp_path, as_bytes):
    torch.save(torch.arange(3.0), tmp_path / "tensor_0.pt")
    assert_same(tmp_path / "tensor_0.pt", {"": torch.arange(3.0)}, as_bytes)


def test_a_wrapper_is_opened_and_what_is_no_tensor_is_listed(tmp_path):
    inner = OrderedDict(a=torch.ones(2), b=None, c={"deep": torch.ones(3)}, d=b"bytes", e={1, 2}, f=(torch.float16,))
    torch.save({"iteration": 7, "model": {"state_dict": inner}, "optimizer": {"m": torch.ones(4)}}, tmp_path / "a.pt")
    opened = open_checkpoint(tmp_path / "a.pt")
    assert [entry.name for entry in opened.entries] == ["a"]
    assert opened.others == tuple(("a.pt", key) for key in ("iteration", "b", "c", "d", "e", "f", "optimizer"))


def test_nested_dicts_without_a_wrapper_are_joined_with_dots(tmp_path):
    torch.save({"language": {"embedding": {"weight": torch.ones(2)}, "0": {"bias": torch.ones(3)}}}, tmp_path / "a.pt")
    assert [e.name for e in open_checkpoint(tmp_path / "a.pt").entries] == [
        "language.embedding.weight",
        "language.0.bias",
    ]


def test_dicts_that_contain_themselves_are_read_once(tmp_path):
    loop: dict = {"x": {"w": torch.ones(1)}}
    loop["x"]["again"] = loop["x"]
    loop["again"] = loop
    torch.save(loop, tmp_path / "a.pt")
    opened = open_checkpoint(tmp_path / "a.pt")
    assert [entry.name for entry in opened.entries] == ["x.w"]
    assert [key for _, key in opened.others] == ["x.again", "again"]


def test_a_name_that_two_nested_dicts_spell_alike_is_a_fault(tmp_path):
    torch.save({"a": {"b.c": torch.ones(1)}, "a.b": {"c": torch.ones(1)}}, tmp_path / "a.pt")
    with pytest.raises(Fault, match="duplicate-tensor"):
        open_checkpoint(tmp_path / "a.pt")


def test_a_conjugated_view_is_a_fault_and_not_wrong_numbers(tmp_path):
    torch.save({"a": torch.ones(2, dtype=torch.complex64).conj()}, tmp_path / "a.pt")
    with pytest.raises(Fault, match="conjugated"):
        open_checkpoint(tmp_path / "a.pt")


def test_reading_headers_imports_no_torch(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "a.pt")
    code = (
        "import sys; from ckptc.runtime.checkpoint.checkpoint import open_checkpoint; "
        f"assert len(open_checkpoint({str(tmp_path / 'a.pt')!r})) == 1; "
        "import ckptc.runtime.files.file_layout, ckptc.runtime.files.shards; "
        "assert not {'torch', 'numba'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
