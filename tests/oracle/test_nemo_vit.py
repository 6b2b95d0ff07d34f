"""NeMo's ViT at one tensor parallel degree to another, as the reference cuts it, through archives and the script's command."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

import ckptc
from ckptc.dsl import MappingError
from ckptc.main import main
from tests.archives import unpack

from .nemo_cases import ORACLE, Case, contents

if not ORACLE.is_dir():
    pytest.skip(f"no oracle data at {ORACLE}", allow_module_level=True)

CASE = Case("vit_pretrain_head_tp_change")
HEADS = 4  # the case does not say how many there are; only rows are cut, so any number that 2 divides will do


def source(place: Path, weights: dict[str, torch.Tensor]) -> Path:
    m = CASE.model
    config = {
        "num_layers": m["L"], "hidden_size": m["H"], "ffn_hidden_size": m["F"], "num_attention_heads": HEADS, "class_token_length": m["cls"], "patch_dim": 4, "num_channels": m["flat"] // 16, "img_h": 16, "img_w": 16,
        "num_classes": m["C"],
        "tensor_model_parallel_size": 1, "pipeline_model_parallel_size": 1, "target": m["target"],
    }  # fmt: skip
    with tarfile.open(place, "w:") as tar:
        stream = io.BytesIO()
        torch.save(weights, stream)
        for name, data in (("./model_config.yaml", yaml.safe_dump(config).encode()), ("./model_weights.ckpt", stream.getvalue())):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return place


@pytest.fixture
def weights() -> dict[str, torch.Tensor]:
    return load_file(CASE.folder / "tp1_model_weights.safetensors")


def change(model: Path, target: Path, tp: int, to: int) -> int:
    words = [
        "megatron_change_num_partitions.py", f"--model_file={model}", f"--target_file={target}", f"--tensor_model_parallel_size={tp}",
        f"--target_tensor_model_parallel_size={to}", "--pipeline_model_parallel_size=-1", "--target_pipeline_model_parallel_size=1",
        "--precision=32", f"--model_class={CASE.model['target']}", "--tp_conversion_only",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as stopped:
        main(["compat", *words])
    return int(stopped.value.code or 0)


def test_the_script_and_back(weights, tmp_path: Path) -> None:
    one, two, again = source(tmp_path / "one.nemo", weights), tmp_path / "two.nemo", tmp_path / "again.nemo"
    assert change(one, two, 1, 2) == 0
    assert contents(two) == CASE.expected()["tp1to2"]
    assert change(two, again, 2, 1) == 0
    assert contents(again) == CASE.expected()["tp2to1"]
    with tarfile.open(two) as tar:
        member = tar.extractfile("./model_config.yaml")
        assert member is not None
        assert yaml.safe_load(member.read())["tensor_model_parallel_size"] == 2


def test_the_heads_of_a_finetuned_model_are_kept(weights, tmp_path: Path) -> None:
    """One layer of ten classes, on every rank."""
    for name in [n for n in weights if n.startswith("model.head.")]:
        del weights[name]
    hidden = CASE.model["H"]
    weights |= {"model.head.weight": torch.randn(10, hidden), "model.head.bias": torch.randn(10)}
    ckptc.plan(source(tmp_path / "one.nemo", weights), to="nemo", tp=2).run(tmp_path / "two")
    for rank in range(2):
        found = torch.load(tmp_path / f"two/mp_rank_0{rank}/model_weights.ckpt", weights_only=True)
        assert found.keys() == weights.keys()
        for name in weights:
            if "head." in name:
                assert torch.equal(found[name], weights[name])


def test_pipeline_stages_are_refused(weights, tmp_path: Path) -> None:
    with pytest.raises(MappingError, match="NeMo's ViT has no pipeline stages"):
        ckptc.plan(source(tmp_path / "one.nemo", weights), to="nemo", pp=2)


@pytest.mark.parametrize("model_type", [[], ["--model_type", "vit_classification"]])
@pytest.mark.parametrize("tp", [1, 2])
def test_a_training_run_becomes_an_archive(tp: int, model_type: list[str], weights, tmp_path: Path) -> None:
    """The files of PyTorch Lightning, with the model's settings in them, by the vision script's command."""
    model = source(tmp_path / "one.nemo", weights)
    if tp > 1:
        one, model = model, tmp_path / "two.nemo"
        assert change(one, model, 1, tp) == 0
    unpack(model, tmp_path / "open")
    config = yaml.safe_load((tmp_path / "open/model_config.yaml").read_text())
    for path in sorted((tmp_path / "open").rglob("model_weights.ckpt")):
        run = tmp_path / "run" / path.relative_to(tmp_path / "open").with_name("vit.ckpt")
        run.parent.mkdir(parents=True, exist_ok=True)
        state = torch.load(path, weights_only=True)
        torch.save({"state_dict": state, "hyper_parameters": {"cfg": config}, "pytorch-lightning_version": "2.0.7", "optimizer_states": [{"m": torch.ones(3)}]}, run)
    words = [
        "examples/vision/convert_ckpt_to_nemo.py", "--checkpoint_folder", tmp_path / "run", "--checkpoint_name", "vit.ckpt", "--nemo_file_path",
        tmp_path / "again.nemo", "--tensor_model_parallel_size", tp, "--pipeline_model_parallel_size", 1, "--gpus_per_node", 1, *model_type,
    ]  # fmt: skip
    with pytest.raises(SystemExit) as stopped:
        main(["compat", *map(str, words)])
    assert not stopped.value.code
    assert contents(tmp_path / "again.nemo") == contents(model)
