"""`ckptc compat checkpoint_converter`: the script's own arguments, against what the script itself wrote."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path

import pytest

import ckptc as face
from ckptc.demo import _bits, differences

SCRIPT = "examples/checkpoint_converter_scripts/checkpoint_converter.py"
CASES = [
    "a2_mha_hf_tp2pp2_coalesce__fwd",
    "a2_mha_hf_tp2pp2_coalesce__back",
    "a8_gqa_hf_no_qkvlinear_tp2pp2__fwd",
    "a8_gqa_hf_no_qkvlinear_tp2pp2__back",
    "b_gqa_hf_bf16_tp4pp2m2_trn1__fwd",
    "b_gqa_hf_bf16_tp4pp2m2_trn1__back",
    "b_gqa_hf_tp8pp1m4_trn2__back",
    "b_gqa_hf_tp8pp1m2_trn2__back",
    "b2_gqa16x4_hf_pad_tp8m2_trn1__fwd",
    "c_gqa_hf_fuse_tp8pp1m4_trn1__fwd",
    "c_gqa_hf_fuse_tp8pp1m4_trn1__back",
    "c_gqa_hf_fuse_without_qkv_linear__fwd",
    "e1_gqa_hf_xser_tp4pp2m2__fwd",
    "e1_gqa_hf_xser_tp4pp2m2__back",
    "h1_pp_uneven_L5pp2__fwd",
    "h2_vpp2_L8pp2__fwd",
    "h4_invfreq_hf_tp2pp2__back",
    "r5_wrong_n_layers_ignored__fwd",
]


@pytest.mark.parametrize("name", CASES)
def test_files_are_those_of_the_script(name, oracle, ckptc, tmp_path):
    case = oracle / "nxd" / name
    places = {"{in}": str(case / "in"), "{out}": str(tmp_path), "{cfg}": str(case / "in" / "config.json")}
    arguments = json.loads((case / "case.json").read_text())["argv"]
    for mark, place in places.items():
        arguments = [a.replace(mark, place) for a in arguments]
    done = ckptc("compat", SCRIPT, *arguments)
    assert done.code == 0, done.err
    found = {}
    for file in tmp_path.rglob("*"):
        if file.is_file():
            found |= {
                (str(file.relative_to(tmp_path)), t.name): (t.shape, t.dtype, hashlib.sha256(_bits(t)).hexdigest())
                for t in face.open(file)
            }
    expected = json.loads((case / "expected.json").read_text())["tensors"]
    assert found == {(t["file"], t["name"]): (tuple(t["shape"]), t["dtype"], t["sha256"]) for t in expected}


def forward(source: Path, *more: object) -> list[object]:
    config = source / "config.json"
    return [
        "compat",
        SCRIPT,
        "--hw_backend",
        "trn1",
        "--input_dir",
        source,
        "--output_dir",
        "out",
        "--config",
        config,
        "--convert_from_full_state",
        *more,
    ]


def backward(config: Path, *more: object) -> list[object]:
    return [
        "compat",
        SCRIPT,
        "--hw_backend",
        "trn1",
        "--input_dir",
        "out/model",
        "--output_dir",
        "full",
        "--config",
        config,
        "--convert_to_full_state",
        *more,
    ]


def test_the_native_command_is_printed_first_and_does_the_same(llama, ckptc):
    done = ckptc(*forward(llama, "--tp_size", 4, "--pp_size", 2, "--kv_size_multiplier", 2, "--qkv_linear", "True"))
    assert done.code == 0, done.err
    program, command, source, _, *options = shlex.split(done.out.splitlines()[0])
    assert program == "ckptc"
    assert ckptc(command, source, "again", *options).code == 0
    for file in Path("out/model").iterdir():
        assert file.read_bytes() == (Path("again/model") / file.name).read_bytes()


def test_there_and_back_gives_one_file_with_all_tensors(llama, ckptc):
    degrees = ["--tp_size", 2, "--kv_size_multiplier", 2, "--qkv_linear"]
    assert ckptc(*forward(llama, *degrees)).code == 0
    done = ckptc(*backward(llama / "config.json", *degrees))
    assert done.code == 0, done.err
    assert [p.name for p in Path("full").iterdir()] == ["checkpoint.pt"]
    assert not [d for d in differences(llama, Path("full")) if "not the same file" not in d]


def test_what_was_in_the_output_folder_stays(llama, ckptc):
    Path("out").mkdir()
    Path("out/notes.txt").write_text("mine")
    assert ckptc(*forward(llama)).code == 0
    assert Path("out/notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("flag", "setting"),
    [
        ([], "split"), (["--qkv_linear"], "linear"), (["--qkv_linear", "True"], "linear"), (["--qkv_linear", "yes"], "linear"),
        (["--qkv_linear", "1"], "linear"), (["--qkv_linear", "False"], "split"), (["--qkv_linear", "0"], "split"),
        (["--qkv_linear", ""], "split"), (["--qkv_l", "true"], "linear"), (["--qkv_linear", "--fuse_qkv"], "fused"),
        (["--fuse_qkv", "True"], "split"), (["--coalesce_qkv", "True"], "coalesced"),
    ],
)  # fmt: skip
def test_yes_and_no_mean_what_they_say(flag, setting, llama, ckptc):
    done = ckptc(*forward(llama, *flag))
    assert done.code == 0, done.err
    assert f"--set qkv={setting}" in done.out.splitlines()[0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--convert_to_full_state"], "exactly one of --convert_from_full_state, --convert_to_full_state"),
        (["--bogus", "1"], "unrecognized arguments: --bogus 1"),
        (["--qkv_linear", "maybe"], "argument --qkv_linear: `maybe` is neither True nor False"),
        (["--tp_size", "0"], "--tp_size must be 1 or more, not 0"),
        (["--qkv_linear", "--coalesce_qkv"], "--coalesce_qkv and --qkv_linear exclude each other"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(arguments, sentence, llama, ckptc):
    done = ckptc(*forward(llama, *arguments))
    assert done.code == 2
    assert done.err.startswith(f"ckptc: {sentence}")
    assert not Path("out").exists()


def test_the_backend_and_the_input_are_needed(ckptc):
    assert ckptc("compat", SCRIPT, "--output_dir", "out", "--convert_from_full_state").err.startswith(
        "ckptc: the following arguments are required: --hw_backend"
    )
    done = ckptc(
        "compat", "checkpoint_converter", "--hw_backend", "trn1", "--output_dir", "out", "--convert_from_full_state"
    )
    assert (done.code, done.err) == (2, "ckptc: --input_dir is needed, or --hf_model_name\n")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--hw_backend", "trn9"], "unknown-hardware"),
        (["--model_style", "megatron"], "not-yet"),
        (["--nxdt_yaml_config", "model.yaml"], "not-yet"),
        (["--ep_size", 2], "not-yet"),
        (["--i_tp_round_factor", 32], "not-yet"),
    ],
)
def test_what_is_not_there_yet_is_said(arguments, code, llama, ckptc):
    done = ckptc(*forward(llama, *arguments))
    assert done.code == 1
    assert done.err.startswith(f"error[{code}]")
    assert not Path("out").exists()


@pytest.mark.parametrize("mode", ["--convert_from_xser", "--convert_to_xser"])
def test_the_xser_modes_are_not_there_yet(mode, ckptc):
    done = ckptc("compat", SCRIPT, "--hw_backend", "trn1", "--input_dir", "in", "--output_dir", "out", mode)
    assert done.err.startswith(f"error[not-yet]: {mode} is not supported yet")


@pytest.mark.parametrize(
    ("arguments", "note"),
    [
        (["--n_layers", 5], "--n_layers is not needed\n"),
        (["--n_layers", 9], "--n_layers is not needed; the config says 5, not 9\n"),
        (["--load_xser", "True"], "--load_xser is not needed"),
        (["--kv_size_multiplier", 2], "--kv_size_multiplier is ignored without --qkv_linear"),
        (["--save_xser", "True"], "--save_xser: the files hold whole tensors"),
        (["--pad_attn_heads", "True"], "--pad_attn_heads is ignored without --qkv_linear"),
        (["--hf_model_name", "org/model"], "--hf_model_name is ignored, as --input_dir is given"),
    ],
)
def test_what_is_not_needed_is_said(arguments, note, llama, ckptc):
    done = ckptc(*forward(llama, *arguments))
    assert done.code == 0, done.err
    assert f"note: {note}" in done.err


def test_a_local_folder_may_be_the_model_name_and_the_hub_is_not_read_yet(llama, ckptc):
    how = ["compat", SCRIPT, "--hw_backend", "trn1", "--output_dir", "out", "--convert_from_full_state"]
    assert ckptc(*how, "--hf_model_name", llama).code == 0
    done = ckptc(*how, "--hf_model_name", "meta-llama/Llama-2-7b-hf")
    assert done.err.startswith("error[not-yet]: `meta-llama/Llama-2-7b-hf` is not a folder")


def test_degrees_that_are_not_those_of_the_files_are_refused(llama, ckptc):
    assert ckptc(*forward(llama, "--tp_size", 2)).code == 0
    done = ckptc(*backward(llama / "config.json", "--tp_size", 1))
    assert done.err.startswith("error[degree-disagrees]")


def test_files_in_the_scripts_own_trn2_order_are_recognised(llama, ckptc):
    own = ["--set", "hw=trn2_converter", "--set", "kv_multiplier=2"]
    assert ckptc("convert", llama, "out", "--to", "nxdt", "--tp", 4, *own).code == 0
    done = ckptc(
        *backward(
            llama / "config.json",
            "--hw_backend",
            "trn2",
            "--tp_size",
            4,
            "--kv_size_multiplier",
            2,
            "--qkv_linear",
            "True",
        )
    )
    assert done.code == 0, done.err
    assert "the script itself made these files" in done.err
    assert not [d for d in differences(llama, Path("full")) if "not the same file" not in d]


def test_the_scripts_help_is_shown(ckptc):
    done = ckptc("compat", SCRIPT, "--help")
    assert done.code == 0
    assert "--kv_size_multiplier" in done.out
