"""What Transformer Engine keeps beside its tensors is left out of every container alike, and nothing of it is called.

Its 1.x releases make `_extra_state` an io.BytesIO, with 8-bit arithmetic or without (get_extra_state in
transformer_engine/pytorch/module/base.py); later ones make it a tensor of bytes or None.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from ckptc.runtime.checkpoint.checkpoint import open_checkpoint
from ckptc.runtime.fault import Fault
from ckptc.runtime.formats.ranks.read_tree import read_tree
from ckptc.runtime.formats.torch.pickle_names import Stray
from ckptc.runtime.formats.torch.pickle_read import read_pickle

from .bomb import Bomb, nothing_runs  # noqa: F401 (a fixture)
from .nemo_files import pack, saved

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
NAME, STATE = "decoder.layers.0.fc1.weight", "decoder.layers.0.fc1._extra_state"
VALUE = torch.arange(35.0).reshape(5, 7)


def scales() -> io.BytesIO:
    buffer = io.BytesIO()
    torch.save({"scale_fwd": torch.ones(3)}, buffer)
    return buffer


def file(name: str, wrap: Callable[[dict[str, Any]], Any] = lambda weights: weights) -> Callable[[Path, dict[str, Any]], Path]:
    def make(folder: Path, weights: dict[str, Any]) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(wrap(weights), path)
        return path

    return make


def nemo(folder: Path, weights: dict[str, Any]) -> Path:
    return pack(folder / "x.nemo", {"model_config.yaml": b"a: 1\n", "model_weights.ckpt": saved(**weights)})


CONTAINERS = {
    "a file of tensors": file("x.pt"),
    "HuggingFace's .bin": file("pytorch_model.bin"),
    "under a wrapper": file("x.pt", lambda w: {"model": w, "user_content": {"step": 3}}),
    "under two wrappers": file("x.pt", lambda w: {"model": {"state_dict": w}}),
    "in dicts of modules": file("x.pt", lambda w: {"encoder": w}),
    "a rank file of Megatron-LM": file("mp_rank_00/model_optim_rng.pt", lambda w: {"model": w, "args": argparse.Namespace(a=1), "checkpoint_version": 3.0}),
    "of virtual stages": file("mp_rank_00/model_optim_rng.pt", lambda w: {"model0": w, "args": argparse.Namespace(a=1), "checkpoint_version": 3.0}),
    "a training run of NeMo": file("x.ckpt", lambda w: {"state_dict": w, "pytorch-lightning_version": "2.0", "hyper_parameters": {}}),
    "a .nemo archive": nemo,
}
STATES: dict[str, Callable[[], Any]] = {
    "a BytesIO": scales, "None": lambda: None, "a dict with tensors": lambda: {"scale_fwd": torch.ones(3)}, "an object": lambda: [Bomb()],
}  # fmt: skip


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("container", CONTAINERS)
def test_state_of_modules_is_left_out_of_every_container(container: str, state: str, tmp_path: Path) -> None:
    opened = open_checkpoint(CONTAINERS[container](tmp_path, {STATE: STATES[state](), NAME: VALUE}))
    (tensor,) = opened
    assert tensor.name.endswith(NAME)
    assert torch.equal(tensor.read(), VALUE)
    assert any(key.endswith(STATE) for _, key in opened.others)


def test_a_distributed_checkpoint_has_it_among_its_objects(tmp_path: Path) -> None:
    dcp.save({NAME: VALUE, f"{STATE}/shard_0_1": scales()}, checkpoint_id=tmp_path / "d", no_dist=True)
    opened = open_checkpoint(tmp_path / "d")
    assert [t.name for t in opened] == [NAME]
    assert ("", f"{STATE}/shard_0_1") in opened.others


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("made", [scales, lambda: argparse.Namespace(a=1), Bomb], ids=["a BytesIO", "a Namespace", "a call"])
def test_under_another_key_among_weights_it_could_be_a_weight_and_is_refused(container: str, made: Callable[[], Any], tmp_path: Path) -> None:
    path = CONTAINERS[container](tmp_path, {NAME: VALUE, "decoder.layers.0.fc2.weight": made()})
    with pytest.raises(Fault, match="unsafe-pickle") as fault:
        open_checkpoint(path)
    assert "nothing was imported or run" in fault.value.notes


@pytest.mark.parametrize("beside", [argparse.Namespace(a=1), Path("x"), io.BytesIO(b"x"), {"at": [Path("x")]}], ids=["args", "path", "buffer", "deep"])
def test_inert_values_may_stand_beside_a_wrapper(beside: Any, tmp_path: Path) -> None:
    torch.save({"model": {NAME: VALUE}, "beside": beside}, tmp_path / "x.pt")
    assert [t.name for t in open_checkpoint(tmp_path / "x.pt")] == [NAME]


def test_state_that_is_kept_whole_is_refused_by_name_where_it_would_be_lost(tmp_path: Path) -> None:
    torch.save({"exp_avg": VALUE, "args": argparse.Namespace(a=1)}, tmp_path / "x.pt")
    with pytest.raises(Fault, match=r"odd-value.*`args`"):
        read_tree(str(tmp_path / "x.pt"), "x.pt")


def test_inert_classes_stand_for_themselves_alone() -> None:
    made = read_pickle(b"\x80\x02}X\x01\0\0\0ac_io\nBytesIO\n)\x81s.", "x")["a"]
    assert isinstance(made, Stray)
    assert made.name == "_io.BytesIO"
    with pytest.raises(Fault, match="unsafe-pickle"):
        read_pickle(b"\x80\x02}X\x01\0\0\0acio\nopen_code\n)Rs.", "x")


def test_a_number_longer_than_python_spells_is_damage(with_pickle: Callable[[bytes], Path]) -> None:
    long = b"\x8b" + (4000).to_bytes(4, "little") + b"\x7f" * 4000
    with pytest.raises(Fault, match="bad-pickle"):
        open_checkpoint(with_pickle(b"\x80\x02}" + long + b"K\x01s."))
