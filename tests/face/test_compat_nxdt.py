"""`ckptc compat checkpoint_converter`: the script's own arguments, against what the script itself wrote."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from ckptc.demo import differences

SCRIPT = "examples/checkpoint_converter_scripts/checkpoint_converter.py"
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
        (["--fuse_qkv", "True"], "split"),
    ],
)  # fmt: skip
def test_yes_and_no_mean_what_they_say(flag, setting, llama, ckptc):
    done = ckptc(*forward(llama, *flag))
    assert done.code == 0, done.err
    assert f"--set qkv={setting}" in done.out.splitlines()[0]


def test_joined_projections_of_shared_heads_are_refused(llama, ckptc):
    """No module has them (NxDT modeling_llama.py:297)."""
    done = ckptc(*forward(llama, "--coalesce_qkv", "True"))
    assert done.code == 1
    assert "--set qkv=coalesced" in done.out.splitlines()[0]
    assert "query, key and value are joined in one tensor only where" in done.err


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
        (["--nxdt_yaml_config", "nowhere.yaml"], "no-config"),
        (["--ep_size", 2], "unmet-requirement"),
        (["--model_style", "megatron", "--qkv_linear", "True", "--kv_size_multiplier", 2], "no-kv-copies"),
    ],
)
def test_what_no_one_can_mean_is_one_diagnostic(arguments, code, llama, ckptc):
    done = ckptc(*forward(llama, *arguments))
    assert done.code == 1
    assert [line.split("]")[0] for line in done.err.splitlines() if line.startswith("error")] == [f"error[{code}"]
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "note"),
    [
        (["--n_layers", 5], "--n_layers is not needed\n"),
        (["--n_layers", 9], "--n_layers is not needed; the config says 5, not 9\n"),
        (["--load_xser", "True"], "--load_xser is not needed"),
        (["--kv_size_multiplier", 2], "--kv_size_multiplier is ignored without --qkv_linear"),
        (["--save_xser", "True"], "--save_xser: each tensor has a file of its own"),
        (["--i_tp_round_factor", 32], "--i_tp_round_factor is ignored: only DBRX uses it"),
        (["--model_style", "megatron"], "rows of key and value stand head by head"),
        (["--pad_attn_heads", "True"], "--pad_attn_heads is ignored without --qkv_linear"),
        (["--hf_model_name", "org/model"], "--hf_model_name is ignored, as --input_dir is given"),
    ],
)
def test_what_is_not_needed_is_said(arguments, note, llama, ckptc):
    done = ckptc(*forward(llama, *arguments))
    assert done.code == 0, done.err
    assert f"note: {note}" in done.err


def test_a_local_folder_may_be_the_model_name(llama, ckptc):
    how = ["compat", SCRIPT, "--hw_backend", "trn1", "--output_dir", "out", "--convert_from_full_state"]
    assert ckptc(*how, "--hf_model_name", llama).code == 0


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
