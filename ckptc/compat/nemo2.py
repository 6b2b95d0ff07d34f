"""NVIDIA NeMo's scripts for distributed checkpoints: the arguments of each in, a conversion out."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from ..nemo.nemo2_models import FAMILIES, MODELS, find_model
from ..nemo.nemo2_side import NEMO_1
from ..runtime.fault import Fault
from ..runtime.formats.nemo.archive import SUFFIX
from ..usage import UsageError
from .native import plan_of
from .nemo import SFT
from .nemo_work import archive, convert_words, say_unneeded, script_parser, to_set, work_of
from .work import Work


def nemo1_to_nemo2(arguments: Sequence[str], script: str = "convert_nemo1_to_nemo2") -> Work:
    parser = script_parser(script, "A NeMo 1 checkpoint to a NeMo 2 folder.")
    add = parser.add_argument
    add("--input_path", required=True, help="a .nemo file, or the folder model_weights of one that is unpacked")
    add("--output_path", required=True, help="the folder to write")
    add("--model_id", required=True, help=f"one of {', '.join(MODELS)}; or, for other sizes, {', '.join(FAMILIES)}")
    add("--tokenizer_path", help="a SentencePiece model, or a folder of HuggingFace's; default: what the config names")
    add("--tokenizer_library", help="sentencepiece or huggingface; default: sentencepiece")
    add("--tokenizer_vocab_file", help="tiktoken's vocabulary, which is not converted")
    add("--tokenizer_model_name", help="not needed")
    args, notes = parser.parse_args(list(arguments)), list[str]()
    say_unneeded(args, ("tokenizer_model_name",), notes)
    if args.tokenizer_vocab_file:
        raise Fault("not-yet", "tiktoken's vocabularies, as of --tokenizer_vocab_file, are not converted yet", help="give --tokenizer_path")
    if os.path.isdir(args.model_id):
        raise Fault("not-yet", f"--model_id {args.model_id} is a folder, and models are not taken from a NeMo 2 folder yet", help="give the id, or the family")
    find_model(args.model_id)
    native = ["convert", args.input_path, args.output_path, "--to", "nemo2", "--model-id", args.model_id]
    closing = [f"NeMo 2.0 checkpoint saved at {args.output_path}"]
    return Work((*native, *_tokenizer(args, notes)), tuple(notes), closing=lambda: closing)


def _tokenizer(args: Namespace, notes: list[str]) -> tuple[str, ...]:
    """The native option for the tokenizer, where one is given."""
    path, library = args.tokenizer_path, args.tokenizer_library
    if library not in (None, "sentencepiece", "huggingface"):
        raise UsageError(f"--tokenizer_library is `{library}`, and must be sentencepiece or huggingface")
    if path is None:
        return ()
    if library is None:
        library = "sentencepiece"
        notes.append("the tokenizer is taken as SentencePiece's, as the script does without --tokenizer_library")
    if library == "huggingface" and not os.path.isdir(path):
        raise UsageError(f"--tokenizer_path is a folder of HuggingFace's files, not `{path}`")
    if library == "sentencepiece" and os.path.isdir(path):
        raise UsageError(f"--tokenizer_path is a SentencePiece model, and `{path}` is a folder (--tokenizer_library=huggingface reads one)")
    if args.input_path.endswith(SUFFIX):
        notes.append(f"the tokenizer is {path}; the script keeps to that of the .nemo file's config")
    return "--tokenizer", path


def zarr_to_torch_dist(arguments: Sequence[str], script: str = "convert_zarr_to_torch_dist") -> Work:
    parser = script_parser(script, "A training run's distributed checkpoint to one in another format.")
    add = parser.add_argument
    add("--checkpoint_folder", required=True, help="the folder of a run's checkpoints")
    add("--checkpoint_name", required=True, help="the checkpoint's name in it")
    add("--hparams_file", help="the run's settings, in the place of those in the checkpoint")
    add("--path_to_save", required=True, help="the folder to write; with --save_to_nemo the .nemo file")
    add("--save_to_nemo", action="store_true", help="write a .nemo file")
    add("--model_type", required=True, choices=("gpt", "sft", "bert"), help="gpt or sft")
    add("--ckpt_format", default="torch_dist", choices=("zarr", "torch_dist"), help="the format to write")
    unneeded = ("gpus_per_node", "tensor_model_parallel_size", "pipeline_model_parallel_size")
    for name in unneeded:
        add(f"--{name}", type=int, required=True, help="not needed")
    others = ("pipeline_model_parallel_split_rank", "cluster_type", "local-rank", "precision")
    for name in others:
        add(f"--{name}", help="not needed")
    args, notes = parser.parse_args(list(arguments)), list[str]()
    say_unneeded(args, (*unneeded, *others), notes)
    if args.model_type == "bert":
        raise Fault("not-yet", "models of type bert are not converted yet")
    target = archive(args.path_to_save, "--path_to_save") if args.save_to_nemo else args.path_to_save
    if target.endswith(SUFFIX) and not args.save_to_nemo:
        raise UsageError(f"--path_to_save `{target}` would be an archive: give --save_to_nemo, or name a folder")
    source = os.path.join(args.checkpoint_folder, args.checkpoint_name)
    options: dict[str, Any] = {"to": NEMO_1, "config": args.hparams_file, "format": args.ckpt_format}
    if args.model_type == "sft":
        options["set-config"] = to_set(plan_of(convert_words(source, target, options)), {"target": SFT})
        notes.append("the config's target is MegatronGPTSFTModel, as the script sets it")
    return work_of(source, target, options, notes, replaces=args.save_to_nemo, closing=[f"NeMo model saved to: {target}"])
