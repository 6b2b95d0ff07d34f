"""What the commands for NeMo 1's scripts share: their parser, what their arguments mean, and a plan as work to do."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ..nemo.config import DTYPES
from ..planning.tokenizer_size import count_tokens
from ..planning.vocabulary import padded
from ..runtime.checkpoint.checkpoint import open_checkpoint
from ..runtime.fault import Fault
from ..runtime.files.read_window import read_at
from ..runtime.files.window import SideFile
from ..runtime.formats.megatron.rank_file import is_of_turn
from ..runtime.formats.nemo.archive import SUFFIX
from ..runtime.tokenizer.sentencepiece_model import count_pieces
from ..usage import UsageError
from .work import ScriptParser, Work

if TYPE_CHECKING:
    from ..api import Plan

LEGACY, INTERLEAVED = "nemo-legacy", "nemo-interleaved"
OPTIONS = {"config": "--config", "family": "--family", "dtype": "--dtype", "tp": "--tp", "pp": "--pp", "format": "--format"}


def script_parser(script: str, about: str) -> ScriptParser:
    return ScriptParser(prog=f"ckptc compat {script}", description=about, allow_abbrev=False)


def work_of(
    src: str, dst: str, plan: Plan, notes: Sequence[str], single_file: str = "", merge: bool = False, replaces: bool = True,
    said: Mapping[str, Any] = MappingProxyType({}), source_said: Mapping[str, Any] = MappingProxyType({}), **options: Any,
) -> Work:  # fmt: skip
    """The plan as work to do, with the native command that comes nearest to it. `said` and `source_said` are settings.

    `replaces`: whether the script writes over what is there.
    """
    native = ["convert", src, dst, "--to", plan.data.target.layout]
    native += [word for key, option in OPTIONS.items() if options.get(key) is not None for word in (option, str(options[key]))]
    native += [word for key, value in said.items() for word in ("--set", f"{key}={value}")]
    native += [word for key, value in source_said.items() for word in ("--from-set", f"{key}={value}")]
    native += ["--single-file", single_file] if single_file else []
    place = os.path.join(dst, single_file) if single_file else dst
    anew = replaces and (single_file or not merge)
    taken = [f"{place} exists; the script replaces it, and so does this"] if anew and os.path.exists(place) else []
    native += ["--merge"] if merge else ["--overwrite"] if taken else []

    def do() -> None:
        from ..cli.running import Running

        place = plan.source.path if plan.source is not None else src
        Running(overwrite=bool(taken), merge=merge).execute(plan, src, place, Path(dst))

    return Work(tuple(native), (*notes, *taken), do=do)


def archive(path: str, option: str) -> str:
    if not path.endswith(SUFFIX):
        raise UsageError(f"{option} must end in {SUFFIX}, not be `{path}`")
    return path


def dtype_of(precision: str) -> str:
    if precision not in DTYPES:
        raise UsageError(f"--precision is `{precision}`, and must be one of {', '.join(DTYPES)}")
    return DTYPES[precision]


def say_unneeded(args: Namespace, names: Sequence[str], notes: list[str]) -> None:
    notes += [f"--{name} is not needed" for name in names if getattr(args, name.replace("-", "_")) not in (None, False)]


def say_degrees(plan: Plan, path: str, tp: int, pp: int) -> list[str]:
    """A note for each degree that was given and that the files do not have."""
    there = dict(plan.data.source.ranks)
    return [
        f"--{option}_model_parallel_size is {given}, but {path} holds files of {there.get(name, 1)}: the files decide"
        for name, option, given in (("tp", "tensor", tp), ("pp", "pipeline", pp))
        if there.get(name, 1) != given
    ]


def check_degrees(plan: Plan, path: str, tp: int, pp: int) -> None:
    """That a training run's files are of the degrees that were given: of too few ranks it may be incomplete."""
    if notes := say_degrees(plan, path, tp, pp):
        raise Fault(
            "degree-disagrees", notes[0].removesuffix(": the files decide"), help="give the degree of the files, or leave out files that do not belong there"
        )  # fmt: skip


def plan_alike(path: str, config: str | None, **options: Any) -> Plan:
    """A plan from NeMo files to NeMo files of the layout they have, and without virtual stages."""
    from .. import api

    checkpoint = open_checkpoint(path)
    legacy = any(".language_model." in f".{tensor.name}" for tensor in checkpoint)
    if any(is_of_turn(tensor.name) for tensor in checkpoint):
        return api.plan(checkpoint, to=LEGACY, from_=INTERLEAVED, config=config, **options)
    return api.plan(checkpoint, to=LEGACY if legacy else "nemo", from_=LEGACY if legacy else "nemo", config=config, **options)


def tokens_of(plan: Plan, tokenizer: Sequence[str]) -> int | None:
    """The tokens of the tokenizer whose files are named, or else lie in the archive, where there are rows above them and
    padding them as NeMo does gives just the rows of the source; None where files and tokenizer do not prove it."""
    named = [SideFile(os.path.basename(file), file, 0, os.path.getsize(file)) for file in tokenizer if os.path.isfile(file)]
    counted = count_tokens(named or plan.extra)
    if counted is None:
        return None
    unit = plan.values.get("vocab_multiple", 1) * dict(plan.data.source.ranks).get("tp", 1)
    return counted[0] if counted[0] < plan.values.get("vocab", 0) == padded(counted[0], unit) else None


def pieces_of(model: SideFile) -> int | None:
    """How many pieces a SentencePiece model has; None where the file is none."""
    return count_pieces(bytes(read_at(model.path, model.at, model.nbytes)))
