"""NVIDIA NeMo 1's converter of a .nemo file to HuggingFace: its arguments in, planned conversions and a tokenizer out."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..nemo.config import DTYPES
from ..nemo.hf_tokenizer import MODEL, named_model, sentencepiece_of
from ..runtime.checkpoint.checkpoint import Checkpoint, open_checkpoint
from ..runtime.formats.nemo.archive import CONFIG, unwrap
from ..usage import UsageError
from .nemo_work import dtype_of, say_unneeded, script_parser, work_of
from .work import Work


def nemo_to_hf(arguments: Sequence[str], script: str) -> Work:
    parser = script_parser(script, "A .nemo file to HuggingFace's weights in one .bin file, and to a folder.")
    add = parser.add_argument
    add("--input_name_or_path", "--in-file", dest="source", required=True, help="the .nemo file to read")
    add("--output_path", "--out-file", dest="target", required=True, help="the .bin file to write")
    add("--hf_input_path", "--hf-in-path", dest="hf_source", help="a HuggingFace folder, whose config the result has")
    add("--hf_output_path", "--hf-out-path", dest="hf_target", help="the HuggingFace folder to write, too")
    add("--input_tokenizer", help="the SentencePiece model for --hf_output_tokenizer; default: that of the .nemo file")
    add("--hf_output_tokenizer", help="the folder to write tokenizer.model to")
    add("--precision", help=f"one of {', '.join(DTYPES)}; default: the config's, as in the script")
    add("--cpu-only", action="store_true", help="not needed")
    args, notes = parser.parse_args(list(arguments)), list[str]()
    say_unneeded(args, ("cpu-only",), notes)
    if args.hf_target and not args.hf_source:
        raise UsageError("--hf_output_path needs --hf_input_path, whose config the folder gets")
    config = args.hf_source and (os.path.join(args.hf_source, "config.json") if os.path.isdir(args.hf_source) else args.hf_source)
    folder, name = os.path.split(args.target)
    if not name or os.path.isdir(args.target):
        raise UsageError(f"--output_path is a file to write, such as pytorch_model.bin, not the folder `{args.target}`")
    source = open_checkpoint(args.source)
    dtype = dtype_of(args.precision) if args.precision else _dtype_of_config(source, notes)
    options: dict[str, Any] = {"to": "hf", "dtype": dtype, "config": config, "family": "llama"}
    tokenizer = _tokenizer_work(args, source, notes)
    work = work_of(args.source, folder or ".", {**options, "format": "bin", "single-file": name}, notes, merge=True, closing=[f"Weights saved to {args.target}"])
    if not args.hf_target:
        return replace(work, then=tokenizer)
    whole = work_of(args.source, args.hf_target, options, (), closing=[f"Full HF model saved to {args.hf_target}"])
    return replace(work, then=replace(whole, then=tokenizer))


def _dtype_of_config(source: Checkpoint, notes: list[str]) -> str | None:
    """What the script casts to without --precision: the dtype that the config's `precision` says, float32 where it is another word."""
    said = unwrap(dict(source.config(CONFIG) or {})).get("precision")
    if said is None:
        return None
    dtype = DTYPES.get(str(said), "float32")
    known = "" if str(said) in DTYPES else ", which is not known"
    notes.append(f"tensors are cast to {dtype}, as the script does without --precision: the config's precision is {said}{known}")
    return dtype


def _tokenizer_work(args: Namespace, source: Checkpoint, notes: list[str]) -> Work | None:
    """The command that writes the SentencePiece model, if one is asked for and is there."""
    folder = args.hf_output_tokenizer
    if not folder:
        notes += ["--input_tokenizer is not needed without --hf_output_tokenizer"] if args.input_tokenizer else []
        return None
    if args.input_tokenizer:
        named_model(args.input_tokenizer)  # one that is not there is said before anything is written
    elif sentencepiece_of(source) is None:
        notes.append(f"--hf_output_tokenizer is not written: {args.source} holds no SentencePiece model (name one with --input_tokenizer)")
        return None
    notes.append(
        f"tokenizer.model is written to {folder}, with a tokenizer_config.json if there is none; tokenizer.json, which "
        "transformers makes of the model, is not: one that is there stays, and is of another tokenizer where tokens were added"
    )
    carried = args.hf_target is not None and os.path.abspath(args.hf_target) == os.path.abspath(folder)  # the commands before may write one there
    overwrite = ("--overwrite",) if carried or os.path.exists(os.path.join(folder, MODEL)) else ()
    return Work(("tokenizer", "to-hf", args.input_tokenizer or args.source, folder, *overwrite), closing=lambda: [f"Tokenizer saved to {folder}"])
