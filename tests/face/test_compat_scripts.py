"""What all translated scripts share: the list of them, a dry run, the lines with which the scripts end.

That each command that is printed does what was done, byte for byte, the fixture `ckptc` holds for every test of compat.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from ckptc.compat.scripts import SCRIPTS
from tests.face.conftest import as_it_was
from tests.face.test_compat_nemo import ONE, change, here  # noqa: F401 (a fixture)
from tests.face.test_compat_nxdt import forward


def test_without_a_script_the_scripts_are_listed_each_with_what_it_does(ckptc):
    done = ckptc("compat")
    lines = done.out.splitlines()
    assert done.code == 0
    assert [line.split()[0] for line in lines[: len(SCRIPTS)]] == sorted(SCRIPTS)
    assert all(line.split(None, 1)[1].split(":")[0].split(" to ")[0] in ("NeMo", "NeMo 1", "NxD", "NxD Training", "Neuron NeMo Megatron") for line in lines[: len(SCRIPTS)])
    assert all(len(line) <= 130 for line in lines)


@pytest.mark.parametrize("word", ["--dry-run", "--dry_run"])
def test_a_dry_run_prints_the_plan_and_writes_nothing(word, llama, ckptc):
    done = ckptc(*forward(llama, "--tp_size", 2, word))
    assert done.code == 0, done.err
    assert done.out.splitlines()[0].endswith(" --merge --dry-run")
    assert "steps" in done.out
    assert not Path("out").exists()


def test_a_dry_run_of_several_commands_says_which_cannot_say_what_they_would_do(here, ckptc):  # noqa: F811
    words = "--input_name_or_path source.nemo --output_path out/weights.bin --hf_input_path HF --hf_output_path whole --hf_output_tokenizer whole/t --dry-run"
    done = ckptc("compat", "convert_llama_nemo_to_hf", *words.split())
    assert done.code == 0, done.err
    commands = [line.split()[1:3] for line in done.out.splitlines() if line.startswith("ckptc ")]
    assert commands == [["convert", "source.nemo"], ["convert", "source.nemo"]]
    assert "note: `ckptc tokenizer to-hf source.nemo whole/t` would be run: it has no --dry-run" in done.err
    assert sorted(p.name for p in Path().iterdir()) == ["HF", "source.nemo"]


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ("convert_llama_hf_to_nemo --input_name_or_path HF --output_path x.nemo", ["NeMo model saved to: x.nemo"]),
        (
            "convert_llama_nemo_to_hf --input_name_or_path source.nemo --output_path w.bin --hf_input_path HF --hf_output_path whole --hf_output_tokenizer whole",
            ["Weights saved to w.bin", "Full HF model saved to whole", "Tokenizer saved to whole"],
        ),
    ],
)
def test_the_scripts_own_last_lines_are_printed(words, lines, here, ckptc):  # noqa: F811
    """`logging.info` in NeMo's scripts/checkpoint_converters."""
    done = ckptc("compat", *words.split())
    assert done.code == 0, done.err
    assert [line for line in done.out.splitlines() if line in lines] == lines


def test_a_change_of_partitions_ends_as_the_script_does(here, ckptc):  # noqa: F811
    assert ckptc(*change("--model_file=source.nemo", *ONE)).out.splitlines()[-1] == "Successfully finished changing partitions!"


def test_the_comparison_of_both_ways_sees_a_byte(tmp_path, monkeypatch):
    """The fixture's own check: a second run that writes something else is found."""
    monkeypatch.chdir(tmp_path)
    Path("kept").write_bytes(b"1")
    with as_it_was(tmp_path) as again:
        Path("made").write_bytes(b"23")
        from tests.face.conftest import Outcome

        def writes(data: bytes):
            return lambda line: (Path("made").write_bytes(data), Outcome(0, "", ""))[1]

        again(writes(b"23"), ["x"])
    with as_it_was(tmp_path) as again, pytest.raises(AssertionError):
        again(writes(b"24"), ["x"])


def test_no_note_speaks_of_what_the_printed_command_leaves_out():
    import ckptc.compat as compat

    assert compat.__file__ is not None
    modules = list(Path(compat.__file__).parent.rglob("*.py"))
    assert len(modules) > len(SCRIPTS) / 2
    for module in modules:
        assert "printed command" not in module.read_text()
