"""The arguments of NeMo's scripts for distributed checkpoints, read up to the conversion itself."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest

from ckptc.compat_nemo2 import nemo1_to_nemo2, zarr_to_torch_dist
from ckptc.failure import UsageError
from ckptc.nemo2_context import HubTokenizer, HuggingFaceFolder, SentencePieceFile
from ckptc.runtime.fault import Fault

LLAMA = "meta-llama/Meta-Llama-3-8B"
SENTENCEPIECE = {"library": "sentencepiece", "model": "nemo:0123_tok.model"}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def archive(tokenizer: dict[str, object]) -> str:
    data = json.dumps({"num_layers": 3, "tokenizer": tokenizer}).encode()
    with tarfile.open("it.nemo", "w:") as tar:
        member = tarfile.TarInfo("./model_config.yaml")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    return "it.nemo"


def unpacked(tokenizer: dict[str, object] | None = None) -> str:
    Path("it/model_weights").mkdir(parents=True)
    Path("it/model_config.yaml").write_text(json.dumps({"num_layers": 5, "tokenizer": tokenizer}))
    return "it/model_weights"


def arguments(source: str, *more: str, model: str = LLAMA) -> list[str]:
    return [f"--input_path={source}", "--output_path=OUT", f"--model_id={model}", *more]


def test_an_archive_brings_its_config_and_its_tokenizer() -> None:
    read = nemo1_to_nemo2(arguments(archive({**SENTENCEPIECE, "sentencepiece_legacy": True})))
    assert (read.source, read.target, read.model, read.config["num_layers"]) == ("it.nemo", "OUT", LLAMA, 3)
    assert (read.tokenizer, read.tokenizer_files, read.notes) == (SentencePieceFile("0123_tok.model", True), (), ())


def test_a_name_on_the_hub_stays_a_name() -> None:
    read = nemo1_to_nemo2(arguments(archive({"library": "huggingface", "type": "org/some"}), model="llama"))
    assert (read.tokenizer, read.tokenizer_files) == (HubTokenizer("org/some"), ())
    assert any("org/some" in note for note in read.notes)


def test_a_folder_of_weights_has_its_config_and_tokenizer_beside_it() -> None:
    source = unpacked(SENTENCEPIECE)
    with pytest.raises(Fault, match=r"`0123_tok\.model` is neither in it/model_weights nor beside it"):
        nemo1_to_nemo2(arguments(source))
    Path("it/0123_tok.model").write_bytes(b"pieces")
    read = nemo1_to_nemo2(arguments(source))
    assert read.config["num_layers"] == 5
    (file,) = read.tokenizer_files
    assert (file.name, file.path, file.at, file.nbytes) == ("0123_tok.model", str(Path("it/0123_tok.model").resolve()), 0, 6)


def test_a_tokenizer_that_is_given() -> None:
    source = unpacked()
    Path("t.model").write_bytes(b"pieces!")
    given = arguments(source, "--tokenizer_path=t.model")
    read = nemo1_to_nemo2([*given, "--tokenizer_library=sentencepiece"])
    assert (read.tokenizer, read.notes) == (SentencePieceFile("t.model"), ())
    assert [(file.name, file.nbytes) for file in read.tokenizer_files] == [("t.model", 7)]
    assert any("--tokenizer_library" in note for note in nemo1_to_nemo2(given).notes)
    Path("hf").mkdir()
    for name in ("vocab.json", "tokenizer.json"):
        Path("hf", name).write_text("{}")
    read = nemo1_to_nemo2(arguments(source, "--tokenizer_path=hf", "--tokenizer_library=huggingface"))
    assert read.tokenizer == HuggingFaceFolder("nemo_tokenizer")
    assert [file.name for file in read.tokenizer_files] == ["nemo_tokenizer/tokenizer.json", "nemo_tokenizer/vocab.json"]


def test_without_a_tokenizer_that_is_said() -> None:
    read = nemo1_to_nemo2(arguments(unpacked()))
    assert read.tokenizer is None
    assert "--tokenizer_path names one" in read.notes[0]


@pytest.mark.parametrize(
    ("more", "model", "kind", "says"),
    [
        ((), "no/model", Fault, "`no/model` is no model id"),
        ((), "it", Fault, "--model_id it is a folder"),
        (("--tokenizer_vocab_file=v.json",), LLAMA, Fault, "tiktoken"),
        (("--tokenizer_path=no.model",), LLAMA, Fault, "there is no file `no.model`"),
        (("--tokenizer_path=it", "--tokenizer_library=megatron"), LLAMA, UsageError, "--tokenizer_library is `megatron`"),
        (("--tokenizer_path=no", "--tokenizer_library=huggingface"), LLAMA, UsageError, "not `no`"),
        (("--what=1",), LLAMA, UsageError, "--what"),
    ],
)
def test_what_is_refused(more: tuple[str, ...], model: str, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        nemo1_to_nemo2(arguments(unpacked(), *more, model=model))


ZARR = [
    "--checkpoint_folder=run/checkpoints", "--checkpoint_name=step=7", "--gpus_per_node=8", "--tensor_model_parallel_size=4",
    "--pipeline_model_parallel_size=2",
]  # fmt: skip


def test_a_checkpoint_of_a_run_in_another_format() -> None:
    read = zarr_to_torch_dist([*ZARR, "--path_to_save=OUT", "--model_type=gpt"])
    assert (read.source, read.target, read.format, read.hparams) == ("run/checkpoints/step=7", "OUT", "torch_dist", None)
    assert read.settings == {"dist_ckpt_format": "torch_dist"}
    assert read.notes == tuple(f"--{name} is not needed" for name in ("gpus_per_node", "tensor_model_parallel_size", "pipeline_model_parallel_size"))
    read = zarr_to_torch_dist([*ZARR, "--path_to_save=o.nemo", "--save_to_nemo", "--model_type=sft", "--ckpt_format=zarr", "--hparams_file=h.yaml"])
    assert (read.target, read.format, read.hparams) == ("o.nemo", "zarr", "h.yaml")
    assert read.settings["dist_ckpt_format"] == "zarr"
    assert read.settings["target"].endswith(".MegatronGPTSFTModel")


@pytest.mark.parametrize(
    ("more", "kind", "says"),
    [
        (("--path_to_save=OUT", "--model_type=bert"), Fault, "type bert"),
        (("--path_to_save=OUT", "--model_type=gpt", "--save_to_nemo"), UsageError, r"must end in \.nemo"),
        (("--path_to_save=OUT", "--model_type=gpt", "--ckpt_format=npz"), UsageError, "npz"),
        (("--model_type=gpt",), UsageError, "--path_to_save"),
    ],
)
def test_what_the_other_script_refuses(more: tuple[str, ...], kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        zarr_to_torch_dist([*ZARR, *more])
