"""NxD Training's `checkpoint_converter.py`: its arguments in, native arguments out."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .compat import ScriptParser, Work, not_yet, truth
from .failure import UsageError
from .runtime.fault import Fault

MODES = ("convert_from_full_state", "convert_to_full_state", "convert_from_xser", "convert_to_xser")
YES_OR_NO = ("qkv_linear", "fuse_qkv", "coalesce_qkv", "pad_attn_heads", "load_xser", "save_xser")


def translate(arguments: Sequence[str]) -> Work:
    args = _parse(arguments)
    chosen = [mode for mode in MODES if getattr(args, mode)]
    if len(chosen) != 1:
        raise UsageError("exactly one of " + ", ".join(f"--{mode}" for mode in MODES) + " is needed")
    _refuse(args, chosen[0])
    source, notes = _source(args)
    notes += _unneeded(args)
    if chosen[0] == "convert_from_full_state":
        return _forward(args, source, notes)
    return _backward(args, source, notes)


def _parse(arguments: Sequence[str]) -> Namespace:
    parser = ScriptParser(prog="ckptc compat checkpoint_converter", description="HuggingFace to NxD Training and back.")
    add = parser.add_argument
    add("--model_style", choices=("hf", "megatron"), default="hf", help="names of the sharded model")
    add("--hw_backend", required=True, help="trn1 or trn2")
    add("--input_dir", help="the file of the full model, or the folder of the sharded one")
    add("--hf_model_name", help="a folder with the HuggingFace model, where --input_dir is not given")
    add("--output_dir", required=True)
    add("--config", help="the model's config.json")
    add("--nxdt_yaml_config")
    add("--model_key", default="model", help="not needed")
    for name, default in (
        ("tp_size", 1),
        ("pp_size", 1),
        ("ep_size", 1),
        ("virtual_pp_size", 1),
        ("kv_size_multiplier", 1),
    ):
        add(f"--{name}", type=int, default=default)
    add("--n_layers", type=int, default=0, help="not needed: read from the files")
    add("--i_tp_round_factor", type=int, default=0, help="for DBRX only")
    for name in YES_OR_NO:
        add(f"--{name}", type=truth, nargs="?", const=True, default=False, metavar="True|False")
    for mode in MODES:
        add(f"--{mode}", action="store_true")
    return parser.parse_args(list(arguments))


def _refuse(args: Namespace, mode: str) -> None:
    """What is not there yet, and what no one can mean."""
    if mode in ("convert_from_xser", "convert_to_xser"):
        raise not_yet(f"--{mode}", "convert with --convert_to_full_state and back")
    if args.hw_backend not in ("trn1", "trn2"):
        raise Fault(
            "unknown-hardware", f"--hw_backend is `{args.hw_backend}`, which is not known", help="use trn1 or trn2"
        )
    if args.model_style == "megatron":
        raise not_yet("--model_style megatron")
    if args.nxdt_yaml_config:
        raise not_yet("--nxdt_yaml_config", "pass the model's config.json with --config")
    if args.ep_size != 1:
        raise not_yet(f"--ep_size {args.ep_size}", "use --ep_size 1")
    if args.i_tp_round_factor:
        raise not_yet("--i_tp_round_factor", "leave it out: only DBRX uses it")
    if args.coalesce_qkv and args.qkv_linear:
        raise UsageError("--coalesce_qkv and --qkv_linear exclude each other")
    for name in ("tp_size", "pp_size", "virtual_pp_size", "kv_size_multiplier"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name} must be 1 or more, not {getattr(args, name)}")


def _source(args: Namespace) -> tuple[str, list[str]]:
    if args.input_dir:
        return args.input_dir, ["--hf_model_name is ignored, as --input_dir is given"] if args.hf_model_name else []
    if not args.hf_model_name:
        raise UsageError("--input_dir is needed, or --hf_model_name")
    if not Path(args.hf_model_name).is_dir():
        raise Fault(
            "not-yet", f"`{args.hf_model_name}` is not a folder, and reading from the hub is not supported yet",
            help="download the model and name its folder with --input_dir",
        )  # fmt: skip
    return args.hf_model_name, []


def _config(args: Namespace) -> dict[str, Any]:
    """The config, only to word notes with; whoever needs it reports that it cannot be read."""
    try:
        found = json.loads(
            Path(args.config or Path(args.input_dir or "").parent / "config.json").read_text(encoding="utf-8")
        )
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _unneeded(args: Namespace) -> list[str]:
    """What was passed and makes no difference."""
    notes = []
    layers = _config(args).get("num_hidden_layers")
    if args.n_layers:
        wrong = isinstance(layers, int) and layers != args.n_layers
        notes.append(
            f"--n_layers is not needed; the config says {layers}, not {args.n_layers}"
            if wrong
            else "--n_layers is not needed"
        )
    if args.model_key != "model":
        notes.append("--model_key is not needed")
    if args.load_xser:
        notes.append("--load_xser is not needed: how tensors are stored is seen from the files")
    if args.pad_attn_heads and not args.qkv_linear:
        notes.append("--pad_attn_heads is ignored without --qkv_linear")
    if args.kv_size_multiplier != 1 and not args.qkv_linear:
        notes.append("--kv_size_multiplier is ignored without --qkv_linear")
    if args.fuse_qkv and not args.qkv_linear:
        notes.append("--fuse_qkv is ignored without --qkv_linear")
    return notes


def _forward(args: Namespace, source: str, notes: list[str]) -> Work:
    if args.save_xser:
        notes.append(
            "--save_xser: the files hold whole tensors, as those of the script itself do; every reader takes both"
        )
    qkv = ("fused" if args.fuse_qkv else "linear") if args.qkv_linear else "coalesced" if args.coalesce_qkv else "split"
    native = [
        "convert",
        source,
        args.output_dir,
        "--from",
        "hf",
        "--to",
        "nxdt",
        "--tp",
        str(args.tp_size),
        "--pp",
        str(args.pp_size),
    ]
    if args.virtual_pp_size != 1:
        native += ["--vpp", str(args.virtual_pp_size)]
    native += ["--set", f"qkv={qkv}"]
    if args.qkv_linear:
        native += ["--set", f"kv_multiplier={args.kv_size_multiplier}", "--set", f"hw={args.hw_backend}"]
        native += ["--set", "pad_heads=true"] if args.pad_attn_heads else []
        if args.hw_backend == "trn2" and args.kv_size_multiplier > 1:
            notes.append(
                "query and key/value heads are paired as the trn2 module has them; "
                "the script pairs them wrongly here (its order is --set hw=trn2_converter)"
            )
    if args.config:
        native += ["--config", args.config]
    return Work((*native, "--merge"), tuple(notes))


def _backward(args: Namespace, source: str, notes: list[str]) -> Work:
    if args.save_xser:
        notes.append("--save_xser is not needed: the result is one file of whole tensors")

    def native(hw: str) -> tuple[str, ...]:
        out = [
            "convert",
            source,
            args.output_dir,
            "--from",
            "nxdt",
            "--to",
            "hf",
            "--tp",
            str(args.tp_size),
            "--pp",
            str(args.pp_size),
        ]
        if args.qkv_linear:
            out += ["--from-set", f"kv_multiplier={args.kv_size_multiplier}", "--from-set", f"hw={hw}"]
            out += ["--from-set", "pad_heads=true"] if args.pad_attn_heads else []
        if args.config:
            out += ["--config", args.config]
        return (*out, "--format", "bin", "--single-file", "checkpoint.pt", "--merge")

    if not args.qkv_linear or args.hw_backend != "trn2" or args.kv_size_multiplier == 1:
        return Work(native(args.hw_backend), tuple(notes))
    if args.tp_size == args.kv_size_multiplier:
        # Every rank holds every key/value head, so the copies cannot tell who wrote the files.
        notes.append(
            "read as the trn2 module orders its heads; if the script wrote these files, use --from-set hw=trn2_converter"
        )
    why = "the key/value heads are not where the trn2 module has them: the script itself made these files, and they are read in its order"
    again = Work(native("trn2_converter"), (why,))
    return Work(native("trn2"), tuple(notes), ("copies-differ", "unmet-requirement"), again)
