"""NxD Training's `nnm_model_ckpt_to_nxdt_model_ckpt_converter.py`: its arguments in, native arguments out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..runtime.checkpoint.checkpoint import Checkpoint, open_checkpoint
from ..runtime.fault import Fault
from ..usage import UsageError
from .work import ScriptParser, Work, truth

LAYER = "model.language_model.encoder.layers.0.self_attention."


def translate(arguments: Sequence[str]) -> Work:
    parser = ScriptParser(
        prog="ckptc compat nnm_model_ckpt_to_nxdt_model_ckpt_converter", description="Neuron NeMo Megatron to NxD Training."
    )
    add = parser.add_argument
    for name in ("tp", "pp", "n_layers"):
        add(f"--{name}", type=int, required=True)
    add("--nnm_ckpt_path", required=True, help="the folder of tp_rank_00_pp_rank_000 and so on")
    add("--nxdt_ckpt_path", required=True, help="where to write; beside it, with _v1 and so on, if it is not empty")
    add("--enable_parallel_processing", type=truth, nargs="?", const=True, default=False, help="not needed")
    add("--num_parallel_processes", type=int, help="not needed")
    args = parser.parse_args(list(arguments))
    for name in ("tp", "pp", "n_layers"):
        if getattr(args, name) < 1:
            raise UsageError(f"--{name} must be 1 or more, not {getattr(args, name)}")
    notes = ["--enable_parallel_processing is not needed; --workers of `ckptc convert` sets threads"] * args.enable_parallel_processing
    notes += ["--num_parallel_processes is not needed"] * (args.num_parallel_processes is not None)
    out = _free(args.nxdt_ckpt_path)
    if out != args.nxdt_ckpt_path:
        notes.append(f"{args.nxdt_ckpt_path} is not empty: {out} is written, as the script does")
    native = ["convert", args.nnm_ckpt_path, out, "--from", "nnm", "--to", "nxdt-megatron", "--tp", str(args.tp), "--pp", str(args.pp)]
    sizes = {"layer": args.n_layers, **_heads(open_checkpoint(args.nnm_ckpt_path), args.tp)}
    settings = [f"{name}={size}" for name, size in sizes.items()] + ["markers=true"]
    native += [word for setting in settings for word in ("--set", setting)]
    return Work((*native, "--format", "xser"), tuple(notes))


def _free(path: str) -> str:
    """The path itself if nothing is there, else the first of path_v1, path_v2, ... that is free."""
    place, version = Path(path), 0
    while place.exists() and (version or not place.is_dir() or any(place.iterdir())):
        version += 1
        place = Path(f"{path}_v{version}")
    return str(place)


def _heads(checkpoint: Checkpoint, tp: int) -> dict[str, int | str]:
    """Sizes of the attention under which its rows stay in their order.

    The files say how many rows a rank has, but not of how many heads. Degrees do not change here, so one head of
    key and value a rank serves: whatever heads there are, their rows are copied in one piece.
    """
    shapes = {tensor.name.removeprefix(LAYER): tensor.shape for tensor in checkpoint if tensor.name.startswith(LAYER)}
    joined = "query_key_value.weight" in shapes
    rows = shapes.get("query_key_value.weight" if joined else "key_value.weight")
    query = shapes.get("dense.weight")
    if rows is None or query is None:
        raise Fault(
            "unknown-layout", f"{checkpoint.path} does not look like a checkpoint of Neuron NeMo Megatron",
            notes=(f"looked for {LAYER}dense.weight, and key_value.weight or query_key_value.weight beside it",),
        )  # fmt: skip
    both = rows[0] - query[1] if joined else rows[0]
    if both < 2 or both % 2 or query[1] % (both // 2):
        raise Fault(
            "wrong-shape", f"{checkpoint.path} has attention of {query[1]} rows of query and {both} of key and value on a rank, which are no heads",
            help="check that the checkpoint is whole",
        )  # fmt: skip
    return {"group": tp, "share": query[1] // (both // 2), "dim": both // 2, "qkv": "coalesced" if joined else "linear"}
