"""NVIDIA NeMo 1's converter of a .nemo file to HuggingFace: its arguments in, planned conversions and a tokenizer out."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..nemo.config import DTYPES
from ..nemo.hf_tokenizer import named_model, sentencepiece_of, write_tokenizer
from ..runtime.checkpoint.checkpoint import Checkpoint, open_checkpoint
from ..runtime.files.window import SideFile
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
    from .. import api
    from ..single_file import into_single_file

    config = args.hf_source and (os.path.join(args.hf_source, "config.json") if os.path.isdir(args.hf_source) else args.hf_source)
    folder, name = os.path.split(args.target)
    if not name or os.path.isdir(args.target):
        raise UsageError(f"--output_path is a file to write, such as pytorch_model.bin, not the folder `{args.target}`")
    source = open_checkpoint(args.source)
    dtype = dtype_of(args.precision) if args.precision else _dtype_of_config(source, notes)
    options: dict[str, Any] = {"dtype": dtype, "config": config, "family": "llama"}
    one = into_single_file(api.plan(source, to="hf", format="bin", **options), name)
    model = _tokenizer_model(args, source, notes)
    work = work_of(args.source, folder or ".", one, notes, name, merge=True, format="bin", **options)
    if not args.hf_target:
        return _and_tokenizer(work, model, args.hf_output_tokenizer)
    whole = work_of(args.source, args.hf_target, api.plan(source, to="hf", **options), (), **options)
    return replace(work, then=_and_tokenizer(whole, model, args.hf_output_tokenizer))


def _dtype_of_config(source: Checkpoint, notes: list[str]) -> str | None:
    """What the script casts to without --precision: the dtype that the config's `precision` says, float32 where it is another word."""
    said = unwrap(dict(source.config(CONFIG) or {})).get("precision")
    if said is None:
        return None
    dtype = DTYPES.get(str(said), "float32")
    known = "" if str(said) in DTYPES else ", which is not known"
    notes.append(f"tensors are cast to {dtype}, as the script does without --precision: the config's precision is {said}{known}")
    return dtype


def _tokenizer_model(args: Namespace, source: Checkpoint, notes: list[str]) -> SideFile | None:
    """The SentencePiece model to write, if one is asked for and is there."""
    if not args.hf_output_tokenizer:
        notes += ["--input_tokenizer is not needed without --hf_output_tokenizer"] if args.input_tokenizer else []
        return None
    model = named_model(args.input_tokenizer) if args.input_tokenizer else sentencepiece_of(source)
    if model is None:
        notes.append(f"--hf_output_tokenizer is not written: {args.source} holds no SentencePiece model (name one with --input_tokenizer)")
    else:
        notes.append(
            f"tokenizer.model is written to {args.hf_output_tokenizer}, with a tokenizer_config.json if there is none; tokenizer.json, which "
            "transformers makes of the model, is not: one that is there stays, and is of another tokenizer where tokens were added"
        )  # fmt: skip
    return model


def _and_tokenizer(work: Work, model: SideFile | None, folder: str) -> Work:
    if model is None or work.do is None:
        return work
    weights, tokenizer = work.do, model

    def do() -> None:
        weights()
        write_tokenizer(tokenizer, folder)

    return replace(work, do=do)
