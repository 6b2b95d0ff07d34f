"""NeMo's scripts for distributed checkpoints through `ckptc compat`: their arguments, and the files that come out."""

from __future__ import annotations

import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from ckptc import convert
from ckptc import open as open_checkpoint
from ckptc.compat.nemo2 import nemo1_to_nemo2, zarr_to_torch_dist
from ckptc.runtime.fault import Fault
from ckptc.usage import UsageError
from tests.face.test_nemo2_convert import write
from tests.held import read, same

LLAMA = "meta-llama/Meta-Llama-3-8B"
FORMATS = ("zarr", "torch_dist")


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def arguments(source: str, *more: str, model: str = LLAMA) -> list[str]:
    return [f"--input_path={source}", "--output_path=OUT", f"--model_id={model}", *more]


def test_the_native_command_says_all() -> None:
    work = nemo1_to_nemo2(arguments("it.nemo"))
    assert work.arguments == ("convert", "it.nemo", "OUT", "--to", "nemo2", "--model-id", LLAMA)
    assert (work.notes, work.then) == ((), None)
    Path("hf").mkdir()
    work = nemo1_to_nemo2(arguments("it/model_weights", "--tokenizer_path=hf", "--tokenizer_library=huggingface", "--tokenizer_model_name=x"))
    assert work.arguments[-2:] == ("--tokenizer", "hf")
    assert work.notes == ("--tokenizer_model_name is not needed",)
    work = nemo1_to_nemo2(arguments("it.nemo", "--tokenizer_path=t.model"))
    assert ["SentencePiece" in work.notes[0], "the script keeps to that of the .nemo file" in work.notes[1]] == [True, True]


@pytest.mark.parametrize(
    ("more", "model", "kind", "says"),
    [
        ((), "no/model", Fault, "`no/model` is no model id"),
        ((), "it", Fault, "--model_id it is a folder"),
        (("--tokenizer_vocab_file=v.json",), LLAMA, Fault, "tiktoken"),
        (("--tokenizer_path=it", "--tokenizer_library=megatron"), LLAMA, UsageError, "--tokenizer_library is `megatron`"),
        (("--tokenizer_path=no", "--tokenizer_library=huggingface"), LLAMA, UsageError, "not `no`"),
        (("--tokenizer_path=it",), LLAMA, UsageError, "`it` is a folder"),
        (("--what=1",), LLAMA, UsageError, "--what"),
    ],
)
def test_what_is_refused(more: tuple[str, ...], model: str, kind: type[Exception], says: str) -> None:
    Path("it").mkdir()
    with pytest.raises(kind, match=says):
        nemo1_to_nemo2(arguments("it/model_weights", *more, model=model))


def names_in(path: str) -> set[str]:
    return {file.relative_to(path).as_posix() for file in Path(path).rglob("*") if file.is_file()}


@pytest.mark.parametrize("format", FORMATS)
def test_an_archive_becomes_the_scripts_folder(ckptc: Callable[..., Any], format: str) -> None:
    source = write(Path("hf"), "llama")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (source / name).unlink()
    (source / "tokenizer.model").write_bytes(b"pieces")
    convert(source, "it.nemo", to="nemo-dist", format=format)
    done = ckptc("compat", "convert_nemo1_to_nemo2.py", *arguments("it.nemo", model="llama"))
    assert (done.code, done.out.splitlines()[0]) == (0, "ckptc convert it.nemo OUT --to nemo2 --model-id llama")
    assert {"weights/metadata.json", "weights/common.pt", "weights/.metadata", "context/io.json", "context/model.yaml", "context/tokenizer.model"} <= names_in("OUT")
    assert {file for file in names_in("OUT") if not file.startswith("weights/")} == {"context/io.json", "context/model.yaml", "context/tokenizer.model"}
    assert same(read("OUT"), {name.replace("model.", "module.", 1): tensor for name, tensor in read("it.nemo").items()})
    again = ckptc("compat", "convert_nemo1_to_nemo2", *arguments("it.nemo", model="llama"))
    assert (again.code, "OUT exists and is not empty" in again.err) == (1, True)
    sizes = ckptc("compat", "convert_nemo1_to_nemo2", *arguments("it.nemo"))
    assert (sizes.code, f"{LLAMA} has 32" in sizes.err) == (1, True)


def test_a_folder_of_weights_with_a_tokenizer_elsewhere(ckptc: Callable[..., Any]) -> None:
    convert(write(Path("hf"), "nemotron"), "it", to="nemo-dist", format="zarr")
    Path("t.model").write_bytes(b"pieces")
    done = ckptc(
        "compat", "convert_nemo1_to_nemo2", *arguments("it/model_weights", "--tokenizer_path=t.model", "--tokenizer_library=sentencepiece", model="nemotron")
    )
    assert (done.code, Path("OUT/context/t.model").read_bytes()) == (0, b"pieces")
    assert same(read("OUT"), {name.replace("model.", "module.", 1): tensor for name, tensor in read("it").items()})


RUN = [
    "--checkpoint_folder=run/checkpoints", "--checkpoint_name=step=7", "--gpus_per_node=8", "--tensor_model_parallel_size=4",
    "--pipeline_model_parallel_size=2",
]  # fmt: skip


@pytest.fixture
def run(request: pytest.FixtureRequest) -> dict[str, Any]:
    """A training run's checkpoint, in the format that is asked for; its settings are in common.pt, as Lightning keeps them."""
    convert(write(Path("hf"), "llama"), "made", to="nemo-dist", format=request.param)
    Path("run/checkpoints").mkdir(parents=True)
    shutil.copytree("made/model_weights", "run/checkpoints/step=7")
    config = dict(yaml.safe_load(Path("made/model_config.yaml").read_text()))
    del config["dist_ckpt_format"]
    torch.save({"hyper_parameters": {"cfg": config}, "global_step": 7, "pytorch-lightning_version": "2.2.1"}, "run/checkpoints/step=7/common.pt")
    return config


@pytest.mark.parametrize(("run", "other"), [("zarr", "torch_dist"), ("torch_dist", "zarr")], indirect=["run"])
def test_a_runs_checkpoint_in_the_other_format(run: dict[str, Any], other: str, ckptc: Callable[..., Any]) -> None:
    asked = [*RUN, f"--ckpt_format={other}", "--precision=bf16-mixed"]
    done = ckptc("compat", "convert_zarr_to_torch_dist.py", *asked, "--path_to_save=OUT", "--model_type=gpt")
    assert done.code == 0, done.err
    assert f"ckptc convert run/checkpoints/step=7 OUT --to nemo-dist --format {other}" in done.out
    assert {file for file in names_in("OUT") if not file.startswith("model_weights/")} == {"model_config.yaml"}
    assert {"model_weights/metadata.json", "model_weights/common.pt"} <= names_in("OUT")
    assert yaml.safe_load(Path("OUT/model_config.yaml").read_text()) == {**run, "dist_ckpt_format": other}
    assert same(read("OUT"), read("run/checkpoints/step=7"))
    assert open_checkpoint("OUT").format == other
    again = ckptc("compat", "convert_zarr_to_torch_dist", *asked, "--path_to_save=OUT", "--model_type=gpt")
    assert (again.code, "OUT exists" in again.err) == (1, True)


@pytest.mark.parametrize("run", ["zarr"], indirect=True)
def test_a_runs_checkpoint_as_an_archive(run: dict[str, Any], ckptc: Callable[..., Any]) -> None:
    Path("h.yaml").write_text(yaml.safe_dump({"cfg": {**run, "seed": 4321}}))
    done = ckptc("compat", "convert_zarr_to_torch_dist", *RUN, "--path_to_save=o.nemo", "--save_to_nemo", "--model_type=sft", "--hparams_file=h.yaml")
    assert done.code == 0, done.err
    with tarfile.open("o.nemo", "r:") as tar:
        names = tar.getnames()
        text = tar.extractfile("./model_config.yaml")
        assert text is not None
        config = yaml.safe_load(io.TextIOWrapper(text).read())
    assert {"./model_weights/.metadata", "./model_weights/metadata.json", "./model_weights/common.pt"} <= set(names)
    target = "nemo.collections.nlp.models.language_modeling.megatron_gpt_sft_model.MegatronGPTSFTModel"
    assert config == {**run, "seed": 4321, "dist_ckpt_format": "torch_dist", "target": target}
    assert same(read("o.nemo"), read("run/checkpoints/step=7"))


@pytest.mark.parametrize(
    ("more", "kind", "says"),
    [
        (("--path_to_save=OUT", "--model_type=bert"), Fault, "type bert"),
        (("--path_to_save=OUT", "--model_type=gpt", "--save_to_nemo"), UsageError, r"must end in \.nemo"),
        (("--path_to_save=o.nemo", "--model_type=gpt"), UsageError, "--save_to_nemo"),
        (("--path_to_save=OUT", "--model_type=gpt", "--ckpt_format=npz"), UsageError, "npz"),
        (("--model_type=gpt",), UsageError, "--path_to_save"),
        (("--path_to_save=OUT", "--model_type=sft"), Fault, "does not exist"),
    ],
)
def test_what_the_other_script_refuses(more: tuple[str, ...], kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        zarr_to_torch_dist([*RUN, *more])
