"""NxD's `convert_zero_checkpoints.py`: its arguments in, native arguments out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..usage import UsageError
from .work import ScriptParser, Work


def translate(arguments: Sequence[str]) -> Work:
    parser = ScriptParser(prog="ckptc compat convert_zero_checkpoints", description="Another degree for zero1 optimizer state.")
    add = parser.add_argument
    add("--input_dir", required=True, help="the folder that has optim/")
    add("--output_dir", required=True, help="the folder whose optim/ is written")
    add("--num_workers", type=int, default=1, help="not needed: --workers of the native command")
    add("--dp_size", type=int, help="the new data parallel degree")
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument("--convert_to_full", action="store_true")
    kind.add_argument("--convert_to_sharded", action="store_true")
    args, unknown = parser.parse_known_args(list(arguments))
    if args.convert_to_sharded and args.dp_size is None:
        raise UsageError("--convert_to_sharded needs --dp_size")
    notes = [f"ignored, as by the script: {' '.join(unknown)}"] if unknown else []
    if args.convert_to_full and args.dp_size is not None:
        notes.append("--dp_size is ignored: full files have no data parallel degree")
    where = ("zero1", str(Path(args.input_dir) / "optim"), str(Path(args.output_dir) / "optim"), "--overwrite")
    return Work((*where, *(("--full",) if args.convert_to_full else ("--dp", str(args.dp_size)))), tuple(notes))
