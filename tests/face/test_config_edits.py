"""Native options that change what is written beside tensors: --config-base, --set-config, --artifact, --tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

import ckptc as face
from tests.face.sentencepiece_models import trained
from tests.face.test_compat_nemo import HIDDEN, config_in, here, opened  # noqa: F401 (here is a fixture)

pytestmark = pytest.mark.usefixtures("here")


def test_keys_of_a_yaml_config_are_set_at_their_place_and_all_else_stays(ckptc):
    done = ckptc("convert", "source.nemo", "plain.nemo", "--to", "nemo", "-q")
    assert done.code == 0, done.err
    pairs = ["precision=16-mixed", "new=0.5", "tokenizer.vocab_file=null", "data.num_workers=3", "optim=[1, 2]", "note=true", 'target="7"']
    done = ckptc("convert", "source.nemo", "set.nemo", "--to", "nemo", "-q", *(word for pair in pairs for word in ("--set-config", pair)))
    assert done.code == 0, done.err
    before, after = config_in("plain.nemo"), config_in("set.nemo")
    assert after == {**before, "precision": "16-mixed", "new": 0.5, "data": {"num_workers": 3}, "optim": [1, 2], "note": True, "target": "7"}
    assert list(after)[: len(before)] == list(before)


def test_a_single_scalar_leaves_every_other_byte_of_the_config(ckptc):
    for name, more in (("plain.nemo", []), ("set.nemo", ["--set-config", "micro_batch_size=2"])):
        assert ckptc("convert", "source.nemo", name, "--to", "nemo", "-q", *more).code == 0
    texts = [opened(name)["model_config.yaml"] for name in ("plain.nemo", "set.nemo")]
    assert texts[1] == texts[0].replace(b"micro_batch_size: 4\n", b"micro_batch_size: 2\n") != texts[0]


def test_huggingfaces_config_is_set_and_has_a_base(ckptc):
    Path("base.json").write_text(json.dumps({"hidden_size": 999, "torch_dtype": "float32", "eos_token_id": 7}))
    done = ckptc("convert", "source.nemo", "out", "--to", "hf", "--config-base", "base.json", "--set-config", "bos_token_id=5", "--set-config", "x.y=z")
    assert done.code == 0, done.err
    config = json.loads(Path("out/config.json").read_text())
    assert (config["hidden_size"], config["eos_token_id"], config["bos_token_id"], config["x"]) == (HIDDEN, 7, 5, {"y": "z"})
    assert "note: not taken from base.json, as they follow from the model: hidden_size" in done.err


def test_what_makes_another_model_of_the_same_weights_is_refused(ckptc):
    done = ckptc("convert", "source.nemo", "out", "--to", "hf", "--set-config", "rms_norm_eps=0.5")
    assert (done.code, done.err.startswith("error[unsayable]")) == (1, True)
    assert not Path("out").exists()


def test_an_artifact_takes_the_place_of_the_archives_own(ckptc):
    Path("new.model").write_bytes(trained("bpe", 33))
    Path("words.txt").write_bytes(b"a\nb\n")
    done = ckptc("convert", "source.nemo", "x.nemo", "--to", "nemo", "--artifact", "tokenizer.model=new.model", "--artifact", "tokenizer.vocab_file=words.txt")
    assert done.code == 0, done.err
    files, tokenizer = opened("x.nemo"), config_in("x.nemo")["tokenizer"]
    named = [tokenizer[key].removeprefix("nemo:") for key in ("model", "vocab_file")]
    assert [files[name] for name in named] == [Path("new.model").read_bytes(), b"a\nb\n"]
    assert {name for name in files if not name.endswith(".ckpt")} == {"model_config.yaml", *named}


def test_a_tokenizer_of_either_kind_is_named_for_nemo_1(ckptc):
    Path("t.model").write_bytes(trained("bpe", 33))
    for given, library, kind in (("t.model", "sentencepiece", None), ("HF", "huggingface", "HF"), ("org/name", "huggingface", "org/name")):
        done = ckptc("convert", "HF", "x.nemo", "--to", "nemo", "--tokenizer", given, "--overwrite")
        assert done.code == 0, done.err
        tokenizer = config_in("x.nemo")["tokenizer"]
        assert (tokenizer["library"], tokenizer.get("type")) == (library, kind)
        assert (tokenizer["model"] is None) == (library == "huggingface")


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--to", "nemo", "--artifact", "tokenizer.model=nowhere"], "no-file"),
        (["--to", "nemo", "--artifact", "note=HF/config.json"], "no-artifact"),
        (["--to", "nemo", "--tokenizer", "nowhere"], "no-file"),
        (["--to", "nemo", "--tokenizer", "HF/config.json"], "bad-model"),
        (["--to", "nemo", "--config-base", "nowhere.yaml"], "no-config"),
        (["--to", "nemo", "--set-config", "a..b=1"], "bad-config-key"),
        (["--to", "megatron", "--set-config", "a=1"], "no-config-file"),
        (["--to", "hf", "--artifact", "tokenizer.model=HF/tokenizer.model"], "no-artifacts"),
        (["--to", "nemo2", "--set-config", "a=1"], "no-config-file"),
    ],
)
def test_edits_that_have_no_place_are_one_diagnostic(more, code, ckptc):
    done = ckptc("convert", "source.nemo", "out.nemo", *more)
    assert done.code == 1
    assert done.err.splitlines()[0].startswith(f"error[{code}]")
    assert not Path("out.nemo").exists()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--set-config", "precision"], "`precision` is not of the form key=value"),
        (["--set-config", "a=1", "--set-config", "a=2"], "`a` is given twice"),
        (["--set-config", "a=1", "--single-file", "x.pt"], "no config or tokenizer is written beside the file"),
    ],
)
def test_edits_that_say_nothing_are_a_usage_error(more, sentence, ckptc):
    done = ckptc("convert", "source.nemo", "out", "--to", "hf", *more)
    assert done.code == 2
    assert sentence in done.err


def test_the_python_face_takes_the_same():
    Path("base.yaml").write_text(yaml.safe_dump({"model": {"seed": 42, "hidden_size": 999}}))
    Path("new.model").write_bytes(b"pieces")
    face.convert("HF", "x.nemo", to="nemo", config_base=Path("base.yaml"), set_config={"precision": "bf16-mixed"}, artifacts={"tokenizer.model": "new.model"})
    config = config_in("x.nemo")
    assert (config["seed"], config["hidden_size"], config["precision"]) == (42, HIDDEN, "bf16-mixed")
    assert opened("x.nemo")[config["tokenizer"]["model"].removeprefix("nemo:")] == b"pieces"


def test_a_sentencepiece_model_becomes_huggingfaces_tokenizer(ckptc):
    for source in ("source.nemo", "HF", "HF/tokenizer.model"):
        done = ckptc("tokenizer", "to-hf", source, "t", "--overwrite")
        assert done.code == 0, done.err
        assert Path("t/tokenizer.model").read_bytes() == Path("HF/tokenizer.model").read_bytes()
    assert ckptc("tokenizer", "to-hf", "HF", "t").err.startswith("error[destination-exists]")
