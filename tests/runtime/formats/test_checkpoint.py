"""Which files a path stands for, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from huggingface_hub import split_torch_state_dict_into_shards

from ckptc.runtime.checkpoint.checkpoint import open_checkpoint
from ckptc.runtime.fault import Fault
from ckptc.runtime.files.shards import hf_shards, index_json, shard_names


def put(path: Path, **tensors: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(tensors, path)
    else:
        torch.save(tensors, path)


def put_index(root: Path, stem: str, suffix: str, weights: dict[str, str]) -> None:
    name, text = index_json(stem, suffix, weights, 12)
    (root / name).write_bytes(text)


def names(path: Path) -> list[tuple[str, str]]:
    return [(entry.file, entry.name) for entry in open_checkpoint(path).entries]


A, B = torch.ones(2), torch.zeros(3)


@pytest.mark.parametrize(("container", "stem"), [("safetensors", "model"), ("bin", "pytorch_model")])
def test_an_index_is_followed(tmp_path, container, stem):
    one, two = shard_names(stem, container, 2)
    assert one == f"{stem}-00001-of-00002.{container}"
    put(tmp_path / one, a=A)
    put(tmp_path / two, b=B)
    put_index(tmp_path, stem, container, {"a": one, "b": two})
    assert names(tmp_path) == [(one, "a"), (two, "b")]
    put_index(tmp_path, stem, container, {"a": one, "b": one})
    with pytest.raises(Fault, match=r"index-mismatch.*`b`"):
        open_checkpoint(tmp_path)
    put(tmp_path / two, b=B, c=B + 1)
    put_index(tmp_path, stem, container, {"a": one, "b": two})
    with pytest.raises(Fault, match=r"index-mismatch.*`c`"):
        open_checkpoint(tmp_path)
    (tmp_path / two).unlink()
    with pytest.raises(Fault, match=rf"missing-file.*{two}"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("file", ["../model.safetensors", "/etc/passwd", "", 7])
def test_an_index_that_points_elsewhere_is_a_fault(tmp_path, file):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(Fault, match="bad-index"):
        open_checkpoint(tmp_path)


def test_safetensors_come_before_bin_and_other_files_stand_beside(tmp_path):
    put(tmp_path / "model.safetensors", a=A)
    put(tmp_path / "pytorch_model.bin", b=B)
    put(tmp_path / "model.safetensors.partial", c=B)
    (tmp_path / "config.json").write_text('{"hidden_size": 7}')
    (tmp_path / "model.yaml").write_text("sizes: [1, 2]")
    (tmp_path / ".hidden").write_text("")
    opened = open_checkpoint(tmp_path)
    assert names(tmp_path) == [("model.safetensors", "a")]
    assert opened.side_files == ("config.json", "model.yaml")
    assert opened.config("config.json") == {"hidden_size": 7}
    assert opened.config("model.yaml") == {"sizes": [1, 2]}
    assert opened.config("tokenizer.json") is None
    assert open_checkpoint(tmp_path / "pytorch_model.bin").config("config.json") == {"hidden_size": 7}
    (tmp_path / "config.json").write_text("[")
    with pytest.raises(Fault, match="bad-config"):
        opened.config("config.json")


def test_shards_without_an_index_are_one_namespace(tmp_path):
    put(tmp_path / "model-00001-of-00002.safetensors", a=A)
    with pytest.raises(Fault, match="1 of 2 shards"):
        open_checkpoint(tmp_path)
    put(tmp_path / "model-00002-of-00002.safetensors", b=B)
    assert [name for _, name in names(tmp_path)] == ["a", "b"]
    put(tmp_path / "model-00002-of-00002.safetensors", a=B)
    with pytest.raises(Fault, match="duplicate-tensor"):
        open_checkpoint(tmp_path)


def test_rank_files_are_found_from_the_root_and_from_their_folder(tmp_path):
    for rank in (0, 1):
        put(tmp_path / f"model/dp_rank_00_tp_rank_{rank:02}_pp_rank_00.pt", a=A + rank)
        (tmp_path / f"model/dp_rank_00_tp_rank_{rank:02}_pp_rank_00.pt.tensors").mkdir()
    put(tmp_path / "optim/dp_rank_00.pt", m=A)
    put(tmp_path / "model/optim/dp_rank_00.pt", m=A)
    put(tmp_path / "model/x.pt.info.pt", m=A)
    (tmp_path / "user_content.pt").write_text("not a torch file")
    files = [f"dp_rank_00_tp_rank_{rank:02}_pp_rank_00.pt" for rank in (0, 1)]
    assert names(tmp_path) == [(f"model/{file}", "a") for file in files]
    assert names(tmp_path / "model") == [(file, "a") for file in files]
    opened = open_checkpoint(tmp_path)
    assert opened.format == "pt"
    assert torch.equal(opened.by_file(f"model/{files[1]}", "a").read(), A + 1)
    with pytest.raises(Fault, match="several-tensors"):
        opened["a"]
    with pytest.raises(Fault, match="missing-tensor"):
        opened["b"]


def test_rank_folders_are_searched_three_levels_deep(tmp_path):
    put(tmp_path / "model/tp_rank_00/checkpoint.pt", a=A)
    assert names(tmp_path) == [("model/tp_rank_00/checkpoint.pt", "a")]
    put(tmp_path / "model/tp_rank_00/deep/er/checkpoint.pt", a=A)
    assert names(tmp_path) == [("model/tp_rank_00/checkpoint.pt", "a")]


def test_a_folder_of_tensors_that_nothing_references_is_not_read(tmp_path):
    put(tmp_path / "model/r.pt", a=A)
    put(tmp_path / "model/r.pt.tensors/tensor_0.pt", b=A)
    for path in (tmp_path, tmp_path / "model", tmp_path / "model/r.pt"):
        assert [t.name for t in open_checkpoint(path)] == ["a"]


def test_a_folder_or_file_that_holds_no_checkpoint_is_named_with_what_was_looked_for(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    for path in (tmp_path, tmp_path / "config.json"):
        with pytest.raises(Fault, match="no-checkpoint") as fault:
            open_checkpoint(path)
        assert str(path) in fault.value.title
        assert "*.safetensors" in fault.value.notes[0]
    with pytest.raises(Fault, match="does not exist"):
        open_checkpoint(tmp_path / "nowhere")


def test_files_of_other_things_are_not_taken_for_weights(tmp_path):
    (tmp_path / "training_args.bin").write_text("a pickle")
    put(tmp_path / "pytorch_model.bin", a=A)
    assert names(tmp_path) == [("pytorch_model.bin", "a")]


def test_a_file_without_tensors_is_a_fault(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "a.pt")
    with pytest.raises(Fault, match="no-tensors"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("limit", [1, 8, 20, 33, 100, 1000])
def test_shards_are_the_hubs(limit):
    sizes = [4, 8, 40, 12, 4, 4, 100, 8, 20, 4]
    tensors = {f"w{i}": torch.zeros(size, dtype=torch.int8) for i, size in enumerate(sizes)}
    right = split_torch_state_dict_into_shards(tensors, max_shard_size=limit)
    shards = hf_shards(sizes, limit)
    files = dict(zip(shard_names("model", "safetensors", len(shards)), ([f"w{i}" for i in s] for s in shards), strict=True))
    assert files == right.filename_to_tensors
    name, text = index_json("model", "safetensors", right.tensor_to_filename, sum(sizes))
    assert name == "model.safetensors.index.json"
    assert json.loads(text)["metadata"] == right.metadata
    assert list(json.loads(text)["weight_map"]) == sorted(tensors)
