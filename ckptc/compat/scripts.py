"""A framework's own script and its arguments in; the native command that does the same, printed and run."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath

from ..dsl.diagnostic import MappingError
from ..dsl.nearest import nearest
from ..failure import diagnostics
from ..runtime.fault import Fault
from ..usage import UsageError
from .work import Work


def _nxdt(arguments: Sequence[str]) -> Work:
    from .nxdt import translate

    return translate(arguments, "checkpoint_converter")


def _nxd(family: str | None) -> Callable[[Sequence[str]], Work]:
    def script(arguments: Sequence[str]) -> Work:
        from .nxdt import translate

        return translate(arguments, "convert_checkpoints", unknown="ignored", family=family)

    return script


def _nxdt_mixtral(arguments: Sequence[str]) -> Work:
    from .nxdt import translate

    return translate(arguments, "hf_nxdt_mixtral_ckpt_converter", unknown="ignored", family="mixtral")


def _nnm(arguments: Sequence[str]) -> Work:
    from .nnm import translate

    return translate(arguments)


def _zero1(arguments: Sequence[str]) -> Work:
    from .zero1 import translate

    return translate(arguments)


def _special_tokens(arguments: Sequence[str]) -> Work:
    from .tokenizer import translate

    return translate(arguments)


def _nemo(script: str) -> Callable[[Sequence[str]], Work]:
    def translate(arguments: Sequence[str]) -> Work:
        from .nemo import TRANSLATORS

        return TRANSLATORS[script](arguments, script)

    return translate


def _nemo2(arguments: Sequence[str]) -> Work:
    from .nemo2 import nemo1_to_nemo2

    return nemo1_to_nemo2(arguments)


def _zarr_to_torch_dist(arguments: Sequence[str]) -> Work:
    from .nemo2 import zarr_to_torch_dist

    return zarr_to_torch_dist(arguments)


SCRIPTS: dict[str, Callable[[Sequence[str]], Work]] = {
    "add_special_tokens_to_sentencepiece": _special_tokens,
    "checkpoint_converter": _nxdt,
    "convert_checkpoints": _nxd(None),
    "convert_checkpoints_dbrx": _nxd("dbrx"),
    "convert_checkpoints_llama": _nxd("llama"),
    "convert_checkpoints_mixtral": _nxd("mixtral"),
    "convert_ckpt_to_nemo": _nemo("convert_ckpt_to_nemo"),
    "convert_hf_llama_to_nemo": _nemo("convert_hf_llama_to_nemo"),
    "convert_hf_llava_to_neva": _nemo("convert_hf_llava_to_neva"),
    "convert_llama_hf_to_nemo": _nemo("convert_llama_hf_to_nemo"),
    "convert_llama_nemo_to_hf": _nemo("convert_llama_nemo_to_hf"),
    "convert_llava_hf_to_nemo": _nemo("convert_llava_hf_to_nemo"),
    "convert_nemo1_to_nemo2": _nemo2,
    "convert_qwen2_hf_to_nemo": _nemo("convert_qwen2_hf_to_nemo"),
    "convert_zarr_to_torch_dist": _zarr_to_torch_dist,
    "convert_zero_checkpoints": _zero1,
    "hf_nxdt_mixtral_ckpt_converter": _nxdt_mixtral,
    "megatron_change_num_partitions": _nemo("megatron_change_num_partitions"),
    "megatron_ckpt_to_nemo": _nemo("megatron_ckpt_to_nemo"),
    "nnm_model_ckpt_to_nxdt_model_ckpt_converter": _nnm,
}


# What stands before a script where it is run: interpreters, and launchers of several processes.
LAUNCHER = re.compile(
    r"(?:python|pypy)[\d.]*|torchrun|accelerate|deepspeed|srun|mpirun|mpiexec|horovodrun|neuron_parallel_compile|env|time|nohup|sudo|uv|poetry|\w+=.*", re.DOTALL
)


def script_name(word: str) -> str | None:
    """The script that a word of a command line names, maybe with its folder and its `.py`."""
    path = PurePath(word)
    name = path.name.removesuffix(".py")
    if f"{name}_{path.parent.name}" in SCRIPTS:
        return f"{name}_{path.parent.name}"  # scripts of one name in folders of families
    return name if name in SCRIPTS else None


def after_launcher(words: Sequence[str]) -> tuple[str, list[str], list[str]]:
    """The script's name, its arguments, and what stood before it: `python3 -u`, or `torchrun --nproc_per_node=8`."""
    first = script_name(words[0])
    if first is not None:
        return first, list(words[1:]), []
    if LAUNCHER.fullmatch(PurePath(words[0]).name if "=" not in words[0] else words[0]):
        for at, word in enumerate(words):
            if (name := script_name(word)) is not None:
                return name, list(words[at + 1 :]), list(words[:at])
        raise UsageError(f"`{shlex.join(words)}` names no script that is known (there is {', '.join(sorted(SCRIPTS))})")
    near = nearest(PurePath(words[0]).name.removesuffix(".py"), sorted(SCRIPTS))
    meant = f"; did you mean `{near}`?" if near else ""
    raise UsageError(f"no script `{words[0]}` is known (there is {', '.join(sorted(SCRIPTS))}){meant}")


def run_script(script: str, arguments: Sequence[str], invoke: Callable[[list[str]], object]) -> None:
    """Translate, print the native command, and `invoke` it. `script` may have its folder and its `.py`, and its launcher before it."""
    name, rest, before = after_launcher([script, *arguments])
    work = SCRIPTS[name](rest)
    if len(before) > 1:
        _say([f"`{shlex.join(before)}` is not needed: ckptc is one process"])
    try:
        _run(work, invoke)
    except (Fault, MappingError) as error:
        if work.otherwise is None or not {d.code for d in diagnostics(error)} & {*work.otherwise_on}:
            raise
        _run(work.otherwise, invoke)


def _run(work: Work, invoke: Callable[[list[str]], object]) -> None:
    _say(work.notes)
    print(f"ckptc {shlex.join(work.arguments)}", flush=True)
    if work.do is not None:
        work.do()
    else:
        invoke(list(work.arguments))
    if work.then is not None:
        _run(work.then, invoke)


def _say(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
