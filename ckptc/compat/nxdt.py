"""NxD's and NxD Training's converters of checkpoints, which are one script: its arguments in, native arguments out."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..compiler.values.scope import either
from ..runtime.fault import Fault
from ..usage import UsageError
from .native import fails_with
from .work import ScriptParser, Work, truth

MODES = ("convert_from_full_state", "convert_to_full_state", "convert_from_xser", "convert_to_xser")
YES_OR_NO = ("qkv_linear", "fuse_qkv", "coalesce_qkv", "pad_attn_heads", "load_xser", "save_xser")
DEGREES = ("tp_size", "pp_size", "ep_size", "virtual_pp_size", "kv_size_multiplier")
# The kinds of fault by which files of the script's own trn2 order are told when they are read in the module's.
NOT_TOLD = ("not-told",)
IN_OWN_ORDER = ("copies-differ", "unmet-requirement")


def translate(arguments: Sequence[str], script: str, unknown: str = "refused", family: str | None = None) -> Work:
    """`unknown`: whether the script refuses or ignores arguments that it does not know. `family`: what it is for."""
    args, ignored = _parse(arguments, script, unknown == "ignored")
    chosen = [mode for mode in MODES if getattr(args, mode)]
    if len(chosen) != 1:
        raise UsageError("exactly one of " + ", ".join(f"--{mode}" for mode in MODES) + " is needed")
    notes = [f"{word} is ignored, as the script ignores it" for word in ignored]
    _refuse(args)
    config = _config_file(args, notes)
    source = _source(args, notes)
    keys = _keys(config, source)
    _say_unneeded(args, keys, notes)
    common = [*(["--config", config] if config else []), *(["--family", family] if family else [])]
    if chosen[0] == "convert_from_full_state":
        return _forward(args, source, common, keys, notes)
    if chosen[0] == "convert_to_full_state":
        return _backward(args, source, common, keys, notes)
    return _repack(args, chosen[0], source, common, keys, notes)


def _parse(arguments: Sequence[str], script: str, lenient: bool) -> tuple[Namespace, list[str]]:
    parser = ScriptParser(prog=f"ckptc compat {script}", description="HuggingFace to NxD or NxD Training, and back.")
    add = parser.add_argument
    add("--model_style", choices=("hf", "megatron"), default="hf", help="names of the sharded model")
    add("--hw_backend", required=True, help="trn1 or trn2")
    add("--input_dir", help="the file of the full model, or the folder of the sharded one")
    add("--hf_model_name", help="a model of the hub, or a folder with one, where --input_dir is not given")
    add("--output_dir", required=True)
    add("--config", help="the model's config.json")
    add("--nxdt_yaml_config", help="NxD Training's YAML file, in the place of --config")
    add("--model_key", default="model", help="not needed")
    for name in DEGREES:
        add(f"--{name}", type=int, default=1)
    add("--n_layers", type=int, default=0, help="not needed: read from the files")
    add("--i_tp_round_factor", type=int, default=0, help="DBRX: the multiple that a rank's part of an expert is filled up to")
    for name in YES_OR_NO:
        add(f"--{name}", type=truth, nargs="?", const=True, default=False, metavar="True|False")
    for mode in MODES:
        add(f"--{mode}", action="store_true")
    return parser.parse_known_args(list(arguments)) if lenient else (parser.parse_args(list(arguments)), [])


def _refuse(args: Namespace) -> None:
    """What no one can mean."""
    if args.hw_backend not in ("trn1", "trn2"):
        raise Fault(
            "unknown-hardware", f"--hw_backend is `{args.hw_backend}`, which is not known", help="use trn1 or trn2"
        )
    if args.coalesce_qkv and args.qkv_linear:
        raise UsageError("--coalesce_qkv and --qkv_linear exclude each other")
    for name in DEGREES:
        if getattr(args, name) < 1:
            raise UsageError(f"--{name} must be 1 or more, not {getattr(args, name)}")
    if args.i_tp_round_factor < 0:
        raise UsageError(f"--i_tp_round_factor must be 0 or more, not {args.i_tp_round_factor}")
    if args.model_style == "megatron" and args.kv_size_multiplier > 1 and args.qkv_linear:
        raise Fault(
            "no-kv-copies", "--kv_size_multiplier above 1 has no meaning in the megatron style: its module divides the key/value heads over the ranks",
            help="use --kv_size_multiplier 1, with a --tp_size that divides the key/value heads",
        )  # fmt: skip


def _source(args: Namespace, notes: list[str]) -> str:
    """The place to read, which may be a model of the hub."""
    if args.input_dir:
        if args.hf_model_name:
            notes.append("--hf_model_name is ignored, as --input_dir is given")
        return str(args.input_dir)
    if not args.hf_model_name:
        raise UsageError("--input_dir is needed, or --hf_model_name")
    return str(args.hf_model_name) if Path(args.hf_model_name).exists() else f"hf://{args.hf_model_name}"


def _config_file(args: Namespace, notes: list[str]) -> str | None:
    """The config to read: the YAML file wins, as in the script, and may name the model's own."""
    if not args.nxdt_yaml_config:
        return str(args.config) if args.config else None
    if args.config:
        notes.append("--config is ignored, as --nxdt_yaml_config is given")
    from ..configs.config_file import read_config
    from ..identify.config_at_hand import follow_config

    read_config(args.nxdt_yaml_config)  # a file that cannot be read is refused here, by its name
    return str(follow_config(args.nxdt_yaml_config))


def _keys(config: str | None, source: str) -> dict[str, Any]:
    """The config that will be read, as far as it is at hand; whoever needs it reports that it cannot be read."""
    from ..configs.config_file import read_config

    place = Path(source)
    above = place.is_file() or place.name == "model"
    beside = place.parent if place.is_file() or (above and not (place / "config.json").exists()) else place
    try:
        found = dict(read_config(config or beside / "config.json"))
    except Fault:
        return {}
    model = found.get("model")
    if isinstance(model, Mapping):  # the framework's YAML file, in the words of a config.json
        groups = model.get("num_kv_heads", model.get("num_attention_heads"))
        found = {"num_hidden_layers": model.get("num_layers"), "num_attention_heads": model.get("num_attention_heads"), "num_key_value_heads": groups}
        found |= {"num_local_experts": 1} if model.get("moe") else {}
    elif "num_attention_heads" in found:
        found.setdefault("num_key_value_heads", found["num_attention_heads"])
    return found


def _say_unneeded(args: Namespace, keys: Mapping[str, Any], notes: list[str]) -> None:
    """What was passed and makes no difference."""
    layers = keys.get("num_hidden_layers", keys.get("n_layers"))
    if args.n_layers:
        wrong = isinstance(layers, int) and layers != args.n_layers
        notes.append("--n_layers is not needed" + (f"; the config says {layers}, not {args.n_layers}" if wrong else ""))
    if args.model_key != "model":
        notes.append("--model_key is not needed")
    if args.load_xser:
        notes.append("--load_xser is not needed: how tensors are stored is seen from the files")
    without_linear = (
        ("--pad_attn_heads", args.pad_attn_heads),
        ("--kv_size_multiplier", args.kv_size_multiplier != 1),
        ("--fuse_qkv", args.fuse_qkv),
    )
    notes += [f"{name} is ignored without --qkv_linear" for name, given in without_linear if given and not args.qkv_linear]
    if args.model_style == "megatron":
        ignored = (("--fuse_qkv", args.fuse_qkv), ("--pad_attn_heads", args.pad_attn_heads))
        notes += [f"{name} is ignored in the megatron style" for name, given in ignored if given and args.qkv_linear]
    if args.fuse_qkv and "ffn_config" in keys:
        notes.append("--fuse_qkv is ignored: the module of DBRX does not join them")
    if args.i_tp_round_factor and "ffn_config" not in keys:
        notes.append("--i_tp_round_factor is ignored: only DBRX uses it")


def _heads(args: Namespace, hw: str, keys: Mapping[str, Any], notes: list[str]) -> list[str]:
    """The settings of attention, as KEY=VALUE."""
    if args.model_style == "megatron":
        heads, groups = keys.get("num_attention_heads"), keys.get("num_key_value_heads")
        if groups is None:
            raise Fault(
                "no-config", "without the model's config it is not known whether query heads share key/value heads, as the megatron style needs",
                help="pass the config with --config",
            )  # fmt: skip
        shared = heads != groups
        if shared != args.qkv_linear:
            has = "a tensor for query and one for key and value" if shared else "one tensor for query, key and value"
            notes.append(f"--qkv_linear {args.qkv_linear} is ignored: with {groups} key/value heads the module has {has}")
        return ["qkv=linear" if shared else "qkv=coalesced"]
    if not args.qkv_linear:
        return ["qkv=coalesced" if args.coalesce_qkv else "qkv=split"]
    qkv = "fused" if args.fuse_qkv and "ffn_config" not in keys else "linear"
    return [f"qkv={qkv}", f"kv_multiplier={args.kv_size_multiplier}", f"hw={hw}", *["pad_heads=true"] * args.pad_attn_heads]


def _settings(option: str, pairs: Sequence[str]) -> list[str]:
    return [word for pair in pairs for word in (option, pair)]


def _layout(args: Namespace) -> str:
    return "nxdt-megatron" if args.model_style == "megatron" else "nxdt"


def _degrees(args: Namespace) -> list[str]:
    degrees = ["--tp", str(args.tp_size), "--pp", str(args.pp_size)]
    return degrees + (["--ep", str(args.ep_size)] if args.ep_size != 1 else [])


def _rounding(args: Namespace, keys: Mapping[str, Any]) -> list[str]:
    return [f"expert_round_to={args.i_tp_round_factor}"] if args.i_tp_round_factor and "ffn_config" in keys else []


def _say_order(args: Namespace, keys: Mapping[str, Any], option: str, notes: list[str]) -> None:
    """Where the module's order of rows is not the script's."""
    heads, groups = keys.get("num_attention_heads"), keys.get("num_key_value_heads")
    if args.model_style == "megatron" and groups != args.tp_size:
        rows = "query, key and value" if heads == groups else "key and value"
        notes.append(
            f"rows of {rows} stand head by head, as the module reads them; "
            f"the script has them in blocks (its order is {option} qkv_order=blocks)"
        )


def _refuse_multiplier(args: Namespace, keys: Mapping[str, Any]) -> None:
    """A number of copies with which no rank would have whole key/value heads and the query heads that attend to them."""
    heads, groups = keys.get("num_attention_heads"), keys.get("num_key_value_heads")
    if args.model_style == "megatron" or not args.qkv_linear or type(heads) is not int or type(groups) is not int:
        return
    tp, share = args.tp_size, heads // max(groups, 1)
    able = [m for m in range(1, tp + 1) if tp % m == 0 and groups % (tp // m) == 0 and (args.pad_attn_heads or share % m == 0)]
    if args.kv_size_multiplier not in able:
        may = f"it may be {either(able)}" if able else "and with this --tp_size no number will do"
        raise Fault(
            "unmet-requirement", f"--kv_size_multiplier is {args.kv_size_multiplier}; with --tp_size {tp}, {heads} heads and {groups} key/value heads {may}",
            notes=("each rank has whole key/value heads and the query heads that attend to them",),
            help=f"use --kv_size_multiplier {able[0]}" if able else "use a --tp_size that divides the heads",
        )  # fmt: skip


def _forward(args: Namespace, source: str, common: list[str], keys: Mapping[str, Any], notes: list[str]) -> Work:
    _refuse_multiplier(args, keys)
    native = ["convert", source, args.output_dir, "--from", "hf", "--to", _layout(args), *_degrees(args)]
    if args.virtual_pp_size != 1:
        native += ["--vpp", str(args.virtual_pp_size)]
    native += _settings("--set", [*_heads(args, args.hw_backend, keys, notes), *_rounding(args, keys)])
    if args.save_xser:
        native += ["--format", "xser"]
        notes.append("--save_xser: each tensor has a file of its own; the script says so too, but writes whole rank files")
    if args.model_style == "hf" and args.qkv_linear and args.hw_backend == "trn2" and args.kv_size_multiplier > 1:
        notes.append(
            "query and key/value heads are paired as the trn2 module has them; "
            "the script pairs them wrongly here (its order is --set hw=trn2_converter)"
        )
    _say_order(args, keys, "--set", notes)
    if "num_local_experts" in keys:
        notes.append(
            "experts are stored as the module declares them, input axis first"
            + (", and each expert parallel rank has its own" if args.ep_size != 1 else "")
            + "; the script does not transpose them (its layout is --set experts=converter)"
        )
    return Work((*native, *common, "--merge"), tuple(notes))


def _backward(args: Namespace, source: str, common: list[str], keys: Mapping[str, Any], notes: list[str]) -> Work:
    if args.save_xser:
        notes.append("--save_xser is not needed: the result is one file of whole tensors")
    if args.virtual_pp_size != 1:
        notes.append("--virtual_pp_size is not needed: which rank has which layer is seen from the files")
    _say_order(args, keys, "--from-set", notes)
    megatron = args.model_style == "megatron"

    def native(hw: str, order: Sequence[str] = ()) -> tuple[str, ...]:
        out = ["convert", source, args.output_dir, "--from", _layout(args), "--to", "hf", *_degrees(args)]
        if args.qkv_linear and not megatron:
            out += _settings("--from-set", _heads(args, hw, keys, [])[1:])
        out += _settings("--from-set", order)
        out += _settings("--from-set", _rounding(args, keys))
        return (*out, *common, "--format", "bin", "--single-file", "checkpoint.pt", "--merge")

    if megatron:  # where the rows' order makes a difference and nothing tells it, it is the module's
        order = ["qkv_order=heads"] if fails_with(native(args.hw_backend), NOT_TOLD) else []
        return Work(native(args.hw_backend, order), tuple(notes))
    return _in_either_order(args, native, notes)


def _in_either_order(args: Namespace, native: Callable[[str], tuple[str, ...]], notes: list[str]) -> Work:
    """Of trn2 with copies, the files may be in the module's order or in the script's: a layer's copies tell."""
    if args.model_style == "megatron" or not args.qkv_linear or args.hw_backend != "trn2" or args.kv_size_multiplier == 1:
        return Work(native(args.hw_backend), tuple(notes))
    if fails_with(native("trn2"), IN_OWN_ORDER):
        notes.append(
            "the key/value heads are not where the trn2 module has them: the script itself made these files for trn2, and "
            "they are read in its order; if they are of trn1, use --hw_backend trn1"
        )
        return Work(native("trn2_converter"), tuple(notes))
    if args.tp_size == args.kv_size_multiplier:
        # Every rank holds every key/value head, so the copies cannot tell who wrote the files.
        notes.append(
            "read as the trn2 module orders its heads; if the script wrote these files, use --from-set hw=trn2_converter"
        )
    return Work(native("trn2"), tuple(notes))


def _repack(args: Namespace, mode: str, source: str, common: list[str], keys: Mapping[str, Any], notes: list[str]) -> Work:
    """The same rank files in the other container; what is in them stays as it is, but for padding."""
    layout = _layout(args)
    notes.append("degrees and settings stay as they are in the files; padding is written as zeros")
    given = [f"{rank}={n}" for rank, n in (("tp", args.tp_size), ("pp", args.pp_size), ("ep", args.ep_size)) if n != 1]

    def native(hw: str) -> tuple[str, ...]:
        out = ["convert", source, args.output_dir, "--from", layout, "--to", layout]
        out += ["--format", "xser" if mode == "convert_to_xser" else "pt"]
        heads = _heads(args, hw, keys, [])[1:] if args.qkv_linear and args.model_style == "hf" else []
        out += _settings("--from-set", [*given, *heads, *_rounding(args, keys)])
        return (*out, *common, "--merge")

    return _in_either_order(args, native, notes)
