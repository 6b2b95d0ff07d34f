"""Command lines as people have them: with an interpreter, or a launcher and its options, before the script."""

from __future__ import annotations

import pytest

from ckptc.compat.scripts import SCRIPTS, after_launcher
from ckptc.usage import UsageError


@pytest.mark.parametrize(
    ("words", "before"),
    [
        ("checkpoint_converter.py --tp_size 8", ""),
        ("python3 checkpoint_converter.py --tp_size 8", "python3"),
        ("/usr/bin/python3.11 -u ./examples/checkpoint_converter.py --tp_size 8", "/usr/bin/python3.11 -u"),
        ("python -m torch.distributed.launch --nproc_per_node=8 checkpoint_converter.py --tp_size 8", "python -m torch.distributed.launch --nproc_per_node=8"),
        ("torchrun --nproc_per_node 8 a/checkpoint_converter --tp_size 8", "torchrun --nproc_per_node 8"),
        ("CUDA_VISIBLE_DEVICES=0,1 srun -n 2 python checkpoint_converter.py --tp_size 8", "CUDA_VISIBLE_DEVICES=0,1 srun -n 2 python"),
        ("env A=b/c nohup python checkpoint_converter.py --tp_size 8", "env A=b/c nohup python"),
    ],
)
def test_what_runs_a_script_is_not_the_script(words: str, before: str) -> None:
    assert after_launcher(words.split()) == ("checkpoint_converter", ["--tp_size", "8"], before.split())


def test_a_script_in_the_folder_of_its_family_is_found_behind_a_launcher() -> None:
    name, rest, before = after_launcher(["python", "llama/convert_checkpoints.py", "--a", "python"])
    assert (name, rest, before) == ("convert_checkpoints_llama", ["--a", "python"], ["python"])
    assert name in SCRIPTS


def test_what_is_neither_is_refused_with_the_one_that_was_meant() -> None:
    with pytest.raises(UsageError, match=r"did you mean `checkpoint_converter`\?"):
        after_launcher(["checkpoint_convertor.py", "checkpoint_converter.py"])
    with pytest.raises(UsageError, match="names no script that is known"):
        after_launcher(["python3", "convert_gpt.py"])


def test_a_launcher_is_said_to_be_unneeded_and_an_interpreter_is_not(ckptc, llama) -> None:
    line = f"checkpoint_converter.py --hw_backend trn1 --model_style hf --input_dir {llama} --output_dir out --config {llama}/config.json --tp_size 2 --convert_from_full_state"
    done = ckptc("compat", "python", *line.split())
    assert done.code == 0
    assert "not needed: ckptc is one process" not in done.err
    done = ckptc("compat", "torchrun", "--nproc_per_node", 2, *line.replace("out ", "out2 ").split())
    assert done.code == 0
    assert "note: `torchrun --nproc_per_node 2` is not needed: ckptc is one process" in done.err
