"""`ckptc verify`: which options it names, and what it refuses of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ckptc.choices.option_names import of_source, of_target
from ckptc.library.mapping_files import families
from tests.face.conftest import Outcome

Run = Callable[..., Outcome]


@pytest.fixture
def ranks(llama: Path, ckptc: Run) -> Path:
    assert ckptc("convert", llama, "ranks", "--to", "nxdt", "--tp", 2, "--quiet").code == 0
    return Path("ranks")


@pytest.mark.parametrize("command", ["verify", "convert"])
def test_what_a_source_cannot_be_is_said_by_the_option_of_the_source(command: str, llama: Path, ranks: Path, ckptc: Run) -> None:
    there = llama if command == "verify" else "new"
    for said, help in (("qkv=x", "use --from-set qkv=linear"), ("kv_multiplier=x", "use --from-set kv_multiplier=1")):
        done = ckptc(command, ranks, there, "--to", "hf", "--config", llama, "--from-set", said)
        assert done.code == 1
        assert f"  = help: {help}\n" in done.err
    if command == "verify":
        done = ckptc("verify", llama, ranks, "--set", "qkv=x")
        assert "  = help: use --set qkv=linear\n" in done.err


def test_compile_names_the_option_of_the_source(llama: Path, ckptc: Run) -> None:
    done = ckptc("compile", "llama", "--from", "nxdt", "--to", "hf", "--config", llama, "--from-set", "qkv=x")
    assert "  = help: use --from-set qkv=linear\n" in done.err


def test_what_only_the_files_of_the_target_leave_open_is_said_by_its_own_option(llama: Path, ckptc: Run) -> None:
    assert ckptc("convert", llama, "old", "--to", "megatron-lm", "--quiet").code == 0
    file = Path("old/release/mp_rank_00/model_optim_rng.pt")
    content = torch.load(file, weights_only=False)
    del content["checkpoint_version"]
    torch.save(content, file)
    as_target = ckptc("verify", llama, "old")
    assert as_target.code == 1
    assert "--set qkv_order=groups" in as_target.err
    assert "--from-set" not in as_target.err
    as_source = ckptc("verify", "old", llama, "--config", llama)
    assert as_source.code == 1
    assert "--from-set qkv_order=groups" in as_source.err
    assert " --set" not in as_source.err
    assert ckptc("verify", llama, "old", "--set", "qkv_order=groups").code == 0
    assert ckptc("verify", "old", llama, "--config", llama, "--from-set", "qkv_order=groups").code == 0


def test_only_parameters_of_the_layout_are_of_the_source() -> None:
    layout = next(f for f in families(None) if f.name == "llama").layout("nxdt")
    change = of_source(layout)
    assert change("use --set qkv=linear, or --stages 0-1,2-3") == "use --from-set qkv=linear, or --from-stages 0-1,2-3"
    for text in ("--set hidden=N", "--from-set qkv=linear", "--set-config qkv=1", "--from-stages 0-1"):
        assert change(text) == text
    assert of_target("say --from-set a=b or --from-stages 1,2, with --from hf") == "say --set a=b or --stages 1,2, with --from hf"


@pytest.mark.parametrize(("option", "help"), [("--family", "llama"), ("--from", "nxdt")])
def test_a_name_that_there_is_not_is_said_with_the_one_that_was_meant(option: str, help: str, llama: Path, ranks: Path, ckptc: Run) -> None:
    done = ckptc("verify", ranks, llama, "--config", llama, option, {"--family": "lama", "--from": "nxd"}[option])
    assert done.code == 1
    assert f"  = help: did you mean `{help}`?\n" in done.err


@pytest.fixture
def summed(llama: Path, ckptc: Run) -> Path:
    assert ckptc("convert", llama, "summed", "--to", "nxdt", "--manifest", "--quiet").code == 0
    return Path("summed")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--from", "hf"], "--from"),
        (["--to", "nxdt"], "--to"),
        (["--set", "qkv=fused"], "--set"),
        (["--tp", "2", "--from-stages", "0-4"], "--tp and --from-stages"),
        (["--no-explain"], "--no-explain"),
        (["--memory", "1GiB"], "--memory"),
        (["--config", "c.json", "--revision", "main"], "--config and --revision"),
        (["--accept", "rope_scaling"], "--accept"),
    ],
)
def test_with_a_manifest_an_option_that_would_change_nothing_is_named(words: list[str], named: str, summed: Path, ckptc: Run) -> None:
    done = ckptc("verify", summed, "--manifest", *words)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"ckptc: with --manifest, {named} would change nothing: files are held against checksums alone (see `ckptc verify --help`)\n"


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("nowhere", "error[missing-file]: there is no `nowhere` here\n"),
        ("sumed", "error[missing-file]: there is no `sumed` here\n  = help: did you mean `summed`?\n"),
        ("org/name", "error[missing-file]: there is no `org/name` here; a repository of the hub is not read with --manifest\n"),
        ("hf://org/name", "error[remote-path]: hf://org/name is on the hub, and --manifest reads files of this machine\n"),
    ],
)
def test_with_a_manifest_a_place_that_is_not_here_is_said_in_one_sentence(place: str, sentence: str, summed: Path, ckptc: Run) -> None:
    done = ckptc("verify", place, "--manifest")
    assert done.code == 1
    assert done.err.startswith(sentence)


def test_a_manifest_is_of_one_place_and_two_are_compared_without_it(summed: Path, ckptc: Run) -> None:
    assert ckptc("verify", summed, "--manifest", "--no-progress", "--quiet").code == 0
    assert ckptc("verify", summed, summed, "--manifest").err.endswith("(see `ckptc verify --help`)\n")
    assert ckptc("verify", summed).err.endswith("(see `ckptc verify --help`)\n")
