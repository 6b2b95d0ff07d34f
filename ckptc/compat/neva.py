"""NVIDIA NeMo 1's converters of LLaVA to NeVA: the arguments of each script in, a planned conversion out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..nemo.config import DTYPES
from ..planning.given_tokenizer import holds_tokenizer
from ..runtime.fault import Fault
from .native import plan_of
from .nemo_work import (
    LEGACY,
    archive,
    convert_words,
    dtype_of,
    pieces_of,
    read_base,
    say_unneeded,
    script_parser,
    to_set,
    tokenizer_name,
    work_of,
)
from .work import Work

if TYPE_CHECKING:
    from ..planning.planned import Plan

MULTIPLE = 128  # of rows of the vocabulary, in the script's own config


def llava_to_legacy(arguments: Sequence[str], script: str) -> Work:
    """The script of NeMo 1.23, which reads LLaVA as its authors publish it."""
    parser = script_parser(script, "LLaVA to a .nemo file of NeVA.")
    add = parser.add_argument
    add("--in-file", required=True, help="LLaVA's folder, or ORG/NAME on the hub")
    add("--out-file", required=True, help="the .nemo file to write")
    add("--conv-template", default="llama_2", help="how conversations are written: nvgpt, llama_2 (default), v1")
    add("--tokenizer-model", help="the SentencePiece model with the special tokens; default: tokenizer.model of LLaVA's folder")
    add("--precision", default="32", help=f"one of {', '.join(DTYPES)}; 32 by default, as in the script")
    add("--config-file", help="a YAML file whose `model` is the base of the config; mcore_gpt: true there gives Megatron-core's names")
    add("--mm_vision_tower", help="the vision tower's name on HuggingFace; default: what LLaVA's config says")
    args, notes = parser.parse_args(list(arguments)), list[str]()
    _say_precision(arguments, "32", notes)
    base = read_base(args.config_file) if args.config_file else None
    said = {"conversation": args.conv_template} | ({"vision_tower": args.mm_vision_tower} if args.mm_vision_tower else {})
    layout = "nemo" if base and base.get("mcore_gpt") else LEGACY
    target = archive(args.out_file, "--out-file")
    return _to_neva(args.in_file, target, layout, args.tokenizer_model, args.precision, said, notes, args.config_file)


def llava_to_mcore(arguments: Sequence[str], script: str) -> Work:
    """The script of NeMo 2.0, which reads HuggingFace's own form of LLaVA."""
    parser = script_parser(script, "HuggingFace's LLaVA to a .nemo file of NeVA.")
    add = parser.add_argument
    add("--input_name_or_path", required=True, help="the HuggingFace folder, or ORG/NAME on the hub")
    add("--output_path", required=True, help="the .nemo file to write")
    add("--tokenizer_path", help="the SentencePiece model with the special tokens; default: tokenizer.model of the HuggingFace folder")
    add("--conv_template", default="v1", help="how conversations are written: nvgpt, llama_2, v1 (default)")
    add("--hparams_file", help="a YAML file whose `model` is the base of the config")
    add("--precision", default="bf16", choices=("bf16", "32"), help="bf16 by default, as in the script")
    add("--skip_verification", action="store_true", help="not needed")
    args, notes = parser.parse_args(list(arguments)), list[str]()
    say_unneeded(args, ("skip_verification",), notes)
    _say_precision(arguments, "bf16", notes)
    base = read_base(args.hparams_file) if args.hparams_file else None
    said = {"conversation": args.conv_template, "vocab_multiple": _multiple(base or {}, args.hparams_file)}
    target = archive(args.output_path, "--output_path")
    return _to_neva(args.input_name_or_path, target, "nemo", args.tokenizer_path, args.precision, said, notes, args.hparams_file)


def _say_precision(arguments: Sequence[str], usual: str, notes: list[str]) -> None:
    if "--precision" not in {word.split("=")[0] for word in arguments}:
        notes.append(f"tensors are cast to {dtype_of(usual)}, as the script does without --precision")


def _multiple(base: Mapping[str, Any], path: str | None) -> int:
    """To what multiple the script pads the rows of the vocabulary."""
    multiple = base.get("make_vocab_size_divisible_by", MULTIPLE)
    if type(multiple) is not int or multiple < 1:
        raise Fault("bad-config", f"make_vocab_size_divisible_by of {path} is {multiple!r}, and must be a whole number from 1", help="set it to 128, say")
    return multiple


def _to_neva(
    source: str, target: str, layout: str, tokenizer: str | None, precision: str, said: Mapping[str, Any], notes: list[str], base_file: str | None,
) -> Work:  # fmt: skip
    options: dict[str, Any] = {"to": layout, "family": "neva", "dtype": dtype_of(precision), "set": said, "config-base": base_file, "tokenizer": tokenizer}
    plan = plan_of(convert_words(source, target, options))
    if not tokenizer and not tokenizer_name(plan) and (not os.path.isdir(source) or holds_tokenizer(source)):
        options["tokenizer"] = source
    if options["tokenizer"] is not None and not os.path.isfile(options["tokenizer"]):
        notes.append("rows of the vocabulary are as LLaVA has them")
    rows = _rows(plan, notes)
    if rows is not None:
        options["set"] = {**said, "padded_vocab": rows}
    if plan.source is not None and any("vision_tower." in tensor.name for tensor in plan.source):
        notes.append("the vision tower's tensors are left out: NeMo takes the tower from HuggingFace by the name in mm_cfg.vision_encoder")
    options["set-config"] = to_set(plan, {"precision": precision})
    return work_of(source, target, options, notes, closing=[f"NeMo model saved to: {target}"])


def _rows(plan: Plan, notes: list[str]) -> int | None:
    """Rows of the vocabulary as NeMo counts them: the tokenizer's pieces, padded. None where they are as they would be anyway."""
    name = tokenizer_name(plan)
    model = next((each for each in plan.extra if each.name == name), None)
    if model is None:
        return None
    pieces = pieces_of(model)
    if pieces is None:
        raise Fault("bad-model", f"{model.path} is not a SentencePiece model", help="name the tokenizer's .model file")
    multiple, vocab = plan.values["vocab_multiple"], plan.values["vocab"]
    rows = -(-pieces // multiple) * multiple
    if rows < vocab:
        raise Fault(
            "small-tokenizer", f"the tokenizer {model.path} has {pieces} pieces, padded {rows}, and the checkpoint has {vocab} rows: NeMo would not load it",
            help="name a tokenizer with all tokens of the model; `ckptc tokenizer add-special-tokens` adds those of NeVA",
        )  # fmt: skip
    if rows > vocab:
        notes.append(
            f"the tokenizer has {pieces} pieces, padded {rows} rows; the {rows - vocab} that LLaVA does not have are zeros, where the script "
            "leaves them as the model was initialised"
        )
    return None if rows == -(-vocab // multiple) * multiple else rows
