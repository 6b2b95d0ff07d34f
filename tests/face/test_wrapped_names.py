"""Names that a wrapper put before the model's own are read without it, where no layout has them as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors.torch import load_file, save_file

import ckptc
from ckptc.demo import write_llama
from ckptc.runtime.fault import Fault

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")


def read(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "hf"
    write_llama(folder)
    return folder


def same(folder: Path, model: Path) -> bool:
    got, wanted = read(folder), read(model)
    return got.keys() == wanted.keys() and all(torch.equal(got[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "module.module."])
def test_wrappers_of_training_loops_are_read_past(prefix: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    save_file({prefix + name: tensor for name, tensor in read(model).items()}, tmp_path / "x/model.safetensors")
    (tmp_path / "x/config.json").write_text((model / "config.json").read_text())
    plan = ckptc.plan(tmp_path / "x", to="hf")
    plan.run(tmp_path / "out")
    assert same(tmp_path / "out", model)
    assert any("module." in note or "_orig_mod." in note for note in plan.notes)
    assert ckptc.inspect(tmp_path / "x")["layout"] == "hf"


def test_torch_compile_within_the_model_is_read_past(model: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    held = {name.replace("layers.", "layers.").replace(".self_attn.", "._orig_mod.self_attn."): tensor for name, tensor in read(model).items()}
    save_file(held, tmp_path / "x/model.safetensors")
    ckptc.convert(tmp_path / "x", tmp_path / "out", to="hf", config=model / "config.json")
    assert same(tmp_path / "out", model)


@pytest.mark.parametrize("nested", [{"model": "own", "optim": "state"}, {"state_dict": "own"}, {"model": "wrapped"}], ids=str)
def test_dicts_around_a_distributed_checkpoint_are_read_past(nested: dict[str, str], model: Path, tmp_path: Path) -> None:
    own = read(model)
    kinds = {"own": own, "wrapped": {f"module.{name}": tensor for name, tensor in own.items()}, "state": {"state": {"m": torch.ones(3)}}}
    dcp.save({key: kinds[kind] for key, kind in nested.items()}, checkpoint_id=tmp_path / "x", no_dist=True)
    ckptc.convert(tmp_path / "x", tmp_path / "out", to="hf", config=model / "config.json")
    assert same(tmp_path / "out", model)


@pytest.mark.parametrize("prefix", ["model.module.", "model.module.module.", "model._orig_mod."])
def test_names_of_nemo_with_a_wrapper_within_are_read_past(prefix: str, model: Path, tmp_path: Path) -> None:
    ckptc.convert(model, tmp_path / "nemo", to="nemo", format="pt")
    file = tmp_path / "nemo/model_weights.ckpt"
    held = torch.load(file, weights_only=True)
    torch.save({name.replace("model.", prefix, 1): tensor for name, tensor in held.items()}, file)
    ckptc.convert(tmp_path / "nemo", tmp_path / "out", to="hf", config=model / "config.json")
    assert same(tmp_path / "out", model)


def test_other_prefixes_are_not_guessed(model: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    save_file({f"policy.{name}": tensor for name, tensor in read(model).items()}, tmp_path / "x/model.safetensors")
    with pytest.raises(Fault, match="unknown-layout"):
        ckptc.plan(tmp_path / "x", to="hf", config=model / "config.json")


def test_two_tensors_that_would_get_one_name_keep_theirs(model: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    own = read(model)
    save_file({**{f"module.{name}": tensor for name, tensor in own.items()}, "lm_head.weight": own["lm_head.weight"].clone()}, tmp_path / "x/model.safetensors")
    with pytest.raises(Fault, match=r"missing-tensor(?s:.*)model\.embed_tokens\.weight"):
        ckptc.convert(tmp_path / "x", tmp_path / "out", to="hf", config=model / "config.json")
