"""NVIDIA NeMo 1's converters: the arguments of each script in, a planned conversion out."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import Any

from ..nemo.config import DTYPES
from ..runtime.fault import Fault
from ..usage import UsageError
from .native import plan_of
from .nemo_to_hf import nemo_to_hf
from .nemo_work import (
    LEGACY,
    alike,
    archive,
    batch_size,
    check_degrees,
    convert_words,
    dtype_of,
    read_base,
    say_degrees,
    say_unneeded,
    script_parser,
    to_set,
    tokenizer_name,
    tokens_of,
    work_of,
)
from .neva import llava_to_legacy, llava_to_mcore
from .work import Work

GPT = ("gpt", "sft")
SFT = "nemo.collections.nlp.models.language_modeling.megatron_gpt_sft_model.MegatronGPTSFTModel"


def change_num_partitions(arguments: Sequence[str], script: str) -> Work:
    parser = script_parser(script, "A .nemo file of other tensor and pipeline parallel degrees.")
    add = parser.add_argument
    add("--model_file", help="the .nemo file to read")
    add("--target_file", required=True, help="the .nemo file to write")
    for name in ("tensor", "pipeline"):
        add(f"--{name}_model_parallel_size", type=int, default=-1, help="of the source; -1: as its files are")
        add(f"--target_{name}_model_parallel_size", type=int, required=True)
    add("--target_pipeline_model_parallel_split_rank", type=int, default=0, help="0: encoder-decoder models are not converted")
    add("--virtual_pipeline_model_parallel_size", type=int)
    for name in ("ckpt_name", "hparams_file", "tokenizer_model_path", "tokenizer_vocab_file", "model_extracted_dir"):
        add(f"--{name}")
    add("--model_class", help="not needed")
    add("--num_gpu_per_node", type=int, help="not needed")
    add("--precision", default="16", help=f"one of {', '.join(DTYPES)}; 16 by default, as in the script")
    add("--megatron_legacy", action="store_true", help="query, key and value rows in blocks")
    add("--tp_conversion_only", action="store_true", help="refuse pipeline stages")
    args, notes = parser.parse_args(list(arguments)), list[str]()
    say_unneeded(args, ("model_class", "num_gpu_per_node"), notes)
    source = args.model_extracted_dir or args.model_file
    if not source:
        raise UsageError("--model_file is needed, or --model_extracted_dir")
    tp, pp, to_tp, to_pp = _partitions(args, notes)
    target = archive(args.target_file, "--target_file")
    if args.ckpt_name and args.model_extracted_dir:
        source = os.path.join(source, args.ckpt_name)
    if "--precision" not in {word.split("=")[0] for word in arguments}:
        notes.append("tensors are cast to float16, as the script does without --precision")
    blocks = {"qkv_order": "blocks"} if args.megatron_legacy else {}
    options: dict[str, Any] = {
        **alike(source), "dtype": dtype_of(args.precision), "tp": to_tp, "pp": to_pp, "config": args.hparams_file, "set": blocks, "from-set": blocks,
        "artifact": {f"tokenizer.{key}": file for key, file in (("model", args.tokenizer_model_path), ("vocab_file", args.tokenizer_vocab_file)) if file},
    }  # fmt: skip
    plan = plan_of(convert_words(source, target, options))
    if (tokens := tokens_of(plan, [file for file in (args.tokenizer_model_path, args.tokenizer_vocab_file) if file])) is not None:
        notes.append(f"the tokenizer has {tokens} tokens, and padded they are the rows that {source} has: what is above is padding")
        options["set"] = {**blocks, "vocab": tokens}
    notes += say_degrees(plan, source, tp, pp) if tp > 0 else []
    turns, given = dict(plan.data.source.params).get("vpp", 1), args.virtual_pipeline_model_parallel_size
    if given is not None and given != turns:
        notes.append(f"--virtual_pipeline_model_parallel_size is {given}, but {source} holds {turns} virtual stages a rank: the files decide")
    if args.tp_conversion_only and dict(plan.data.source.ranks).get("pp", 1) > 1:
        raise Fault("stages", f"{source} has pipeline stages, which --tp_conversion_only excludes", help="leave --tp_conversion_only out")
    options["set-config"] = to_set(plan, batch_size(plan, to_tp * to_pp) | {"precision": args.precision})
    return work_of(source, target, options, notes, closing=["Successfully finished changing partitions!"])


def _partitions(args: Namespace, notes: list[str]) -> tuple[int, int, int, int]:
    """The degrees of the source, -1 where they are as its files are, and of the target."""
    tp, pp = args.tensor_model_parallel_size, args.pipeline_model_parallel_size
    to_tp, to_pp = args.target_tensor_model_parallel_size, args.target_pipeline_model_parallel_size
    for name, degree in (("tensor", to_tp), ("pipeline", to_pp)):
        if degree < 1:
            raise UsageError(f"--target_{name}_model_parallel_size must be 1 or more, not {degree}")
    if 0 in (tp, pp):
        raise UsageError("a degree of the source is 1 or more, or -1 for what its files have")
    if min(tp, pp) < 0:
        notes += [f"the given source degree {max(tp, pp)} is not looked at, as the other is -1"] if max(tp, pp) > 0 else []
        tp = pp = -1
    if args.target_pipeline_model_parallel_split_rank:
        raise Fault("not-yet", "encoder-decoder models, which have a split rank, are not converted yet", help="leave --target_pipeline_model_parallel_split_rank out")
    if args.tp_conversion_only and (pp > 1 or to_pp > 1):
        raise Fault("stages", "--tp_conversion_only excludes pipeline stages, and a degree above 1 was given", help="leave --tp_conversion_only out")
    return tp, pp, to_tp, to_pp


def hf_to_nemo(arguments: Sequence[str], script: str) -> Work:
    family = "qwen2" if "qwen2" in script else "llama"
    usual = "32" if script == "convert_hf_llama_to_nemo" else "16"  # up to release 1.22, by the script's old name; since
    parser = script_parser(script, "HuggingFace to a .nemo file.")
    add = parser.add_argument
    add("--input_name_or_path", "--in-file", dest="source", required=True, help="the HuggingFace folder, or ORG/NAME on the hub")
    add("--output_path", "--out-file", dest="target", required=True, help="the .nemo file to write")
    add("--hparams_file", help="a YAML file whose `model` is the base of the config; mcore_gpt: false there gives NeMo's own modules")
    add("--precision", default=usual, help=f"one of {', '.join(DTYPES)}; {usual} by default, as in the script")
    add("--llama31", help="not needed: read from the config")
    args, notes = parser.parse_args(list(arguments)), list[str]()
    say_unneeded(args, ("llama31",), notes)
    target = archive(args.target, "--output_path")
    if "--precision" not in {word.split("=")[0] for word in arguments}:
        notes.append(f"tensors are cast to {dtype_of(usual)}, as the script does without --precision")
    base = read_base(args.hparams_file) if args.hparams_file else None
    if base is None:
        notes.append("without --hparams_file the model has Megatron-core's names; for NeMo's own modules give one with mcore_gpt: false")
    layout = "nemo" if base is None or base.get("mcore_gpt") else LEGACY
    options: dict[str, Any] = {"to": layout, "from": "hf", "dtype": dtype_of(args.precision), "family": family, "config-base": args.hparams_file}
    plan = plan_of(convert_words(args.source, target, options))
    values = {"override_vocab_size": plan.values["vocab"]} if family == "qwen2" else {}
    options["set-config"] = to_set(plan, values | {"precision": args.precision})
    if family == "qwen2" or not tokenizer_name(plan):
        options["tokenizer"] = args.source
        options["set-config"] |= {"tokenizer.trust_remote_code": True} if family == "qwen2" else {}
    return work_of(args.source, target, options, notes, closing=[f"NeMo model saved to: {target}"])


def ckpt_to_nemo(arguments: Sequence[str], script: str) -> Work:
    own = script == "megatron_ckpt_to_nemo"
    parser = script_parser(script, "The files of a training run to a .nemo file.")
    add = parser.add_argument
    add("--checkpoint_folder", required=True, help="the folder of rank folders")
    add("--checkpoint_name", required=True, help="the file's name in each")
    add("--nemo_file_path", required=True, help="the .nemo file to write")
    add("--hparams_file", help="the run's settings, in the place of those in the checkpoint")
    add("--model_type", required=own, help="gpt, sft, neva, ...; default: as the files are")
    for name in ("tensor", "pipeline"):
        add(f"--{name}_model_parallel_size", type=int, required=own, default=1)
    add("--pipeline_model_parallel_split_rank", type=int, help="of encoder-decoder models, which are not converted")
    add("--no_pack_nemo_file", action="store_true", help="write the files into the folder of --nemo_file_path")
    for name in ("gpus_per_node", "local_rank", "local-rank"):
        add(f"--{name}", dest=name.replace("-", "_"), help="not needed")
    add("--bcp", action="store_true", help="not needed")
    add("--convert_mlm", action="store_true", help="not needed")
    add("--precision", help="not needed: tensors stay as they are")
    args, notes = parser.parse_args(list(arguments)), list[str]()
    say_unneeded(args, ("gpus_per_node", "local_rank", "bcp", "convert_mlm", "precision"), notes)
    tp, pp = args.tensor_model_parallel_size, args.pipeline_model_parallel_size
    if min(tp, pp) < 1:
        raise UsageError("degrees must be 1 or more")
    source = os.path.join(args.checkpoint_folder, args.checkpoint_name)
    folder = os.path.dirname(args.nemo_file_path) or "."
    target = folder if args.no_pack_nemo_file else archive(args.nemo_file_path, "--nemo_file_path")
    options: dict[str, Any] = {**alike(source), "config": args.hparams_file, "family": _family_of(args.model_type)}
    plan = plan_of(convert_words(source, target, options))
    check_degrees(plan, args.checkpoint_folder, tp, pp)
    if plan.data.source.layout != plan.data.target.layout:  # virtual stages: what is written is another layout, of the same ranks
        options |= {"tp": tp, "pp": pp}
    if args.model_type == "sft":
        options["set-config"] = to_set(plan, {"target": SFT})
        notes.append("the config's target is MegatronGPTSFTModel, as the script sets it")
    return work_of(source, target, options, notes, merge=args.no_pack_nemo_file, closing=[f"NeMo model saved to: {args.nemo_file_path}"])


def _family_of(model_type: str | None) -> str | None:
    """The family that a model type means, None where the files tell."""
    from ..library.mapping_files import families

    if model_type is None or model_type in GPT:
        return None
    model_type = {"vit_classification": "vit"}.get(model_type, model_type)
    if model_type not in {family.name for family in families(None)}:
        raise Fault(
            "not-yet", f"models of type {model_type} are not converted yet",
            help="give --model_type gpt if it is a GPT model, or a mapping of your own to `ckptc convert` with --mapping",
        )  # fmt: skip
    return model_type


TRANSLATORS: dict[str, Callable[[Sequence[str], str], Work]] = {
    "convert_ckpt_to_nemo": ckpt_to_nemo,
    "convert_hf_llama_to_nemo": hf_to_nemo,
    "convert_hf_llava_to_neva": llava_to_legacy,
    "convert_llama_hf_to_nemo": hf_to_nemo,
    "convert_llama_nemo_to_hf": nemo_to_hf,
    "convert_llava_hf_to_nemo": llava_to_mcore,
    "convert_qwen2_hf_to_nemo": hf_to_nemo,
    "megatron_change_num_partitions": change_num_partitions,
    "megatron_ckpt_to_nemo": ckpt_to_nemo,
}
