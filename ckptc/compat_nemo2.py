"""NVIDIA NeMo's scripts for distributed checkpoints: the arguments of each in, what is to be converted out."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .compat_nemo import SFT
from .compat_nemo_work import archive, say_unneeded, script_parser
from .config_file import read_config
from .failure import UsageError
from .nemo2_context import HubTokenizer, HuggingFaceFolder, SentencePieceFile, Tokenizer, tokenizer_of
from .nemo2_models import FAMILIES, MODELS, find_model
from .runtime.fault import Fault
from .runtime.nemo_archive import CONFIG, unwrap
from .runtime.window import SideFile

# Where the script puts HuggingFace's files in the context folder.
HF_FOLDER = "nemo_tokenizer"


@dataclass(frozen=True)
class Import:
    """A NeMo 1 checkpoint to be a NeMo 2 one. `tokenizer_files` go into the context folder, beside what `context_files` makes;
    where the tokenizer's file lies in the archive that is the source, there is none among them."""

    source: str
    target: str
    model: str
    config: Mapping[str, Any]
    tokenizer: Tokenizer | None
    tokenizer_files: tuple[SideFile, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Resave:
    """A training run's distributed checkpoint to be a NeMo 1 one in `format`. `settings` are set in its config."""

    source: str
    target: str
    format: str
    hparams: str | None
    settings: Mapping[str, Any]
    notes: tuple[str, ...]


def nemo1_to_nemo2(arguments: Sequence[str], script: str = "convert_nemo1_to_nemo2") -> Import:
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
    model = find_model(args.model_id)
    config = _config_of(args.input_path)
    tokenizer, files = _tokenizer(args, config, notes)
    if tokenizer is None:
        notes.append("the config names no tokenizer, so the result has none; --tokenizer_path names one")
    return Import(args.input_path, args.output_path, model.name, config, tokenizer, files, tuple(notes))


def _config_of(source: str) -> Mapping[str, Any]:
    """The config in an archive, or in a folder of weights or the folder around it."""
    path = Path(source)
    if path.is_dir():
        places = [folder / CONFIG for folder in (path, path.resolve().parent)]
        path = next((place for place in places if place.is_file()), places[0])
    return unwrap(dict(read_config(path)))


def _tokenizer(args: Namespace, config: Mapping[str, Any], notes: list[str]) -> tuple[Tokenizer | None, tuple[SideFile, ...]]:
    path, library = args.tokenizer_path, args.tokenizer_library
    if path is None:
        found = tokenizer_of(config)
        if isinstance(found, SentencePieceFile) and os.path.isdir(args.input_path):
            return found, (_beside(args.input_path, found.name),)
        if isinstance(found, HubTokenizer):
            notes.append(f"NeMo 2 fetches the tokenizer {found.name} from the hub when it loads the result")
        return found, ()
    if library is None:
        library = "sentencepiece"
        notes.append("the tokenizer is taken as SentencePiece's, as the script does without --tokenizer_library")
    if not os.path.isdir(args.input_path):
        notes.append(f"the tokenizer is {path}; the script keeps to that of the .nemo file's config")
    if library == "sentencepiece":
        return SentencePieceFile(os.path.basename(path)), (_file(path, os.path.basename(path)),)
    if library == "huggingface":
        if not os.path.isdir(path):
            raise UsageError(f"--tokenizer_path is a folder of HuggingFace's files, not `{path}`")
        names = sorted(each.name for each in Path(path).iterdir() if each.is_file())
        return HuggingFaceFolder(HF_FOLDER), tuple(_file(os.path.join(path, name), f"{HF_FOLDER}/{name}") for name in names)
    raise UsageError(f"--tokenizer_library is `{library}`, and must be sentencepiece or huggingface")


def _beside(source: str, name: str) -> SideFile:
    """The tokenizer's file in the folder of weights, or in the folder around it, which the archive was unpacked to."""
    places = [os.path.join(folder, name) for folder in (source, os.path.dirname(os.path.abspath(source)))]
    place = next((place for place in places if os.path.isfile(place)), None)
    if place is None:
        raise Fault("no-file", f"the config's tokenizer `{name}` is neither in {source} nor beside it", help="name it with --tokenizer_path")
    return _file(place, name)


def _file(path: str, name: str) -> SideFile:
    if not os.path.isfile(path):
        raise Fault("no-file", f"there is no file `{path}`", help="name the tokenizer's file")
    return SideFile(name, os.path.abspath(path), 0, os.path.getsize(path))


def zarr_to_torch_dist(arguments: Sequence[str], script: str = "convert_zarr_to_torch_dist") -> Resave:
    parser = script_parser(script, "A training run's distributed checkpoint to one in another format.")
    add = parser.add_argument
    add("--checkpoint_folder", required=True, help="the folder of a run's checkpoints")
    add("--checkpoint_name", required=True, help="the checkpoint's name in it")
    add("--hparams_file", help="the run's settings, in the place of those in the checkpoint")
    add("--path_to_save", required=True, help="the folder to write; with --save_to_nemo the .nemo file")
    add("--save_to_nemo", action="store_true", help="write a .nemo file")
    add("--model_type", required=True, choices=("gpt", "sft", "bert"), help="gpt or sft")
    add("--ckpt_format", default="torch_dist", choices=("zarr", "torch_dist"), help="the format to write")
    for name in ("gpus_per_node", "tensor_model_parallel_size", "pipeline_model_parallel_size"):
        add(f"--{name}", type=int, required=True, help="not needed")
    for name in ("pipeline_model_parallel_split_rank", "cluster_type", "local-rank", "precision"):
        add(f"--{name}", help="not needed")
    args, notes = parser.parse_args(list(arguments)), list[str]()
    say_unneeded(
        args,
        (
            "gpus_per_node", "tensor_model_parallel_size", "pipeline_model_parallel_size", "pipeline_model_parallel_split_rank",
            "cluster_type", "local-rank", "precision",
        ),
        notes,
    )  # fmt: skip
    if args.model_type == "bert":
        raise Fault("not-yet", "models of type bert are not converted yet")
    settings = {"dist_ckpt_format": args.ckpt_format}
    if args.model_type == "sft":
        settings["target"] = SFT
        notes.append("the config's target is MegatronGPTSFTModel, as the script sets it")
    target = archive(args.path_to_save, "--path_to_save") if args.save_to_nemo else args.path_to_save
    source = os.path.join(args.checkpoint_folder, args.checkpoint_name)
    return Resave(source, target, args.ckpt_format, args.hparams_file, settings, tuple(notes))
