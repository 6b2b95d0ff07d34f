"""A framework's own script and its arguments in; the native command that does the same, printed and run."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath

from ..dsl.nearest import nearest
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


SCRIPTS: dict[str, tuple[Callable[[Sequence[str]], Work], str]] = {
    "add_special_tokens_to_sentencepiece": (_special_tokens, "NeMo: special tokens into a SentencePiece model"),
    "checkpoint_converter": (_nxdt, "NxD Training: HuggingFace to rank files and back, to xser and back"),
    "convert_checkpoints": (_nxd(None), "NxD: HuggingFace to rank files and back, to xser and back"),
    "convert_checkpoints_dbrx": (_nxd("dbrx"), "NxD: the same for DBRX"),
    "convert_checkpoints_llama": (_nxd("llama"), "NxD: the same for Llama"),
    "convert_checkpoints_mixtral": (_nxd("mixtral"), "NxD: the same for Mixtral"),
    "convert_ckpt_to_nemo": (_nemo("convert_ckpt_to_nemo"), "NeMo 1: a training run's .ckpt to a .nemo file (GPT, NeVA, ViT)"),
    "convert_hf_llama_to_nemo": (_nemo("convert_hf_llama_to_nemo"), "NeMo 1: HuggingFace's Llama to a .nemo file, in float32"),
    "convert_hf_llava_to_neva": (_nemo("convert_hf_llava_to_neva"), "NeMo 1: LLaVA to a .nemo file of NeVA, with NeMo's own modules"),
    "convert_llama_hf_to_nemo": (_nemo("convert_llama_hf_to_nemo"), "NeMo 1: HuggingFace's Llama to a .nemo file, in float16"),
    "convert_llama_nemo_to_hf": (_nemo("convert_llama_nemo_to_hf"), "NeMo 1: a .nemo file to HuggingFace's weights, in one .bin file and a folder"),
    "convert_llava_hf_to_nemo": (_nemo("convert_llava_hf_to_nemo"), "NeMo 1: HuggingFace's LLaVA to a .nemo file of NeVA, with Megatron-core's modules"),
    "convert_nemo1_to_nemo2": (_nemo2, "NeMo 1 to NeMo 2: weights and context"),
    "convert_qwen2_hf_to_nemo": (_nemo("convert_qwen2_hf_to_nemo"), "NeMo 1: HuggingFace's Qwen2 to a .nemo file, in float16"),
    "convert_zarr_to_torch_dist": (_zarr_to_torch_dist, "NeMo 1: a training run's distributed checkpoint in the other format"),
    "convert_zero_checkpoints": (_zero1, "NxD: zero1 optimizer state of another data parallel degree, or uncut"),
    "hf_nxdt_mixtral_ckpt_converter": (_nxdt_mixtral, "NxD Training: HuggingFace's Mixtral to rank files and back"),
    "megatron_change_num_partitions": (_nemo("megatron_change_num_partitions"), "NeMo 1: a .nemo file of other tensor and pipeline parallel degrees"),
    "megatron_ckpt_to_nemo": (_nemo("megatron_ckpt_to_nemo"), "NeMo 1: a training run's .ckpt to a .nemo file"),
    "nnm_model_ckpt_to_nxdt_model_ckpt_converter": (_nnm, "Neuron NeMo Megatron to NxD Training, into xser files"),
}
# Native commands that can say what they would do, and do nothing.
HAVE_DRY_RUN = ("convert", "zero1")


def listing() -> str:
    """The scripts, one a line, with what each does."""
    width = max(map(len, SCRIPTS))
    lines = [f"{name:{width}}  {about}" for name, (_, about) in SCRIPTS.items()]
    return "\n".join([*lines, "", "`ckptc compat SCRIPT --help` lists a script's arguments. With --dry-run the plan is printed, and nothing is written."])


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
    """Translate, print the native commands, and `invoke` each. `script` may have its folder and its `.py`, and its launcher before
    it. `--dry-run` among the script's arguments is passed on."""
    name, rest, before = after_launcher([script, *arguments])
    dry = [word for word in rest if word in ("--dry-run", "--dry_run")]
    translate, _ = SCRIPTS[name]
    work = translate([word for word in rest if word not in dry])
    if len(before) > 1:
        _say([f"`{shlex.join(before)}` is not needed: ckptc is one process"])
    _run(work, invoke, bool(dry))


def _run(work: Work | None, invoke: Callable[[list[str]], object], dry: bool) -> None:
    while work is not None:
        _say(work.notes)
        able = work.arguments[0] in HAVE_DRY_RUN
        words = [*work.arguments, *(["--dry-run"] if dry and able else [])]
        if able or not dry:
            print(f"ckptc {shlex.join(words)}", flush=True)
            invoke(words)
        else:
            _say([f"`ckptc {shlex.join(words)}` would be run: it has no --dry-run"])
        for line in work.closing() if work.closing is not None and not dry else ():
            print(line, file=sys.stderr if work.logs else sys.stdout, flush=True)
        work = work.then


def _say(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
