"""What the commands for NeMo 1's scripts share: their parser, what their arguments mean, and native commands."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..choices.pairs import typed
from ..configs.config_file import read_config
from ..configs.yaml_text import value_at
from ..nemo.artifacts import REFERENCE
from ..nemo.config import DTYPES
from ..planning.tokenizer_size import count_tokens
from ..planning.vocabulary import padded
from ..runtime.checkpoint.checkpoint import open_checkpoint
from ..runtime.fault import Fault
from ..runtime.files.read_window import read_at
from ..runtime.files.window import SideFile
from ..runtime.formats.megatron.rank_file import is_of_turn
from ..runtime.formats.nemo.archive import CONFIG, SUFFIX, unwrap
from ..runtime.formats.nemo.interpolation import plain
from ..runtime.tokenizer.sentencepiece_model import count_pieces
from ..usage import UsageError
from .work import ScriptParser, Work

if TYPE_CHECKING:
    from ..planning.planned import Plan

LEGACY, INTERLEAVED = "nemo-legacy", "nemo-interleaved"
# The options of a native command in the order in which they are written; those that may repeat take a mapping.
OPTIONS = ("to", "from", "config", "family", "dtype", "tp", "pp", "format")
REPEATED = ("set", "from-set", "artifact", "set-config")


def script_parser(script: str, about: str) -> ScriptParser:
    return ScriptParser(prog=f"ckptc compat {script}", description=about, allow_abbrev=False)


def convert_words(src: str, dst: str, options: Mapping[str, Any]) -> list[str]:
    """The words of a native `convert`. `options` are by their names; those that are None are left out."""
    words = ["convert", src, dst]
    for name in (*OPTIONS, *REPEATED[:2], "config-base", "tokenizer", *REPEATED[2:], "single-file"):
        value = options.get(name)
        if name in REPEATED:
            spelled = typed if name == "set-config" else str
            words += [word for key, each in (value or {}).items() for word in (f"--{name}", f"{key}={spelled(each)}")]
        elif value is not None:
            words += [f"--{name}", str(value)]
    return words


def work_of(src: str, dst: str, options: Mapping[str, Any], notes: Sequence[str], merge: bool = False, replaces: bool = True, closing: Sequence[str] = ()) -> Work:
    """The native command. `replaces`: whether the script writes over what is there; `closing` are its last lines."""
    single_file = options.get("single-file")
    place = os.path.join(dst, single_file) if single_file else dst
    anew = replaces and (single_file or not merge)
    taken = [f"{place} exists; the script replaces it, and so does this"] if anew and os.path.exists(place) else []
    words = [*convert_words(src, dst, options), *(["--merge"] if merge else ["--overwrite"] if taken else [])]
    return Work(tuple(words), (*notes, *taken), closing=(lambda: closing) if closing else None)


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


def alike(path: str) -> dict[str, str]:
    """The layouts for NeMo files of the layout that those at `path` have, and without virtual stages."""
    checkpoint = open_checkpoint(path)
    if any(is_of_turn(tensor.name) for tensor in checkpoint):
        return {"to": LEGACY, "from": INTERLEAVED}
    return {"to": LEGACY if any(".language_model." in f".{tensor.name}" for tensor in checkpoint) else "nemo"}


def config_of(plan: Plan) -> dict[str, Any]:
    """The model_config.yaml that a plan writes."""
    import yaml

    return dict(yaml.safe_load(dict(plan.data.files)[CONFIG]))


def to_set(plan: Plan, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those values of top keys that the plan's config does not have. Numbers that are given as text are numbers."""
    config = config_of(plan)
    numbers = {key: int(value) if isinstance(value, str) and value.isdecimal() else value for key, value in values.items()}
    return {key: value for key, value in numbers.items() if key not in config or config[key] != value}


def batch_size(plan: Plan, ranks: int) -> dict[str, Any]:
    """What a change of degrees does to other settings: no virtual stages, and a global batch that the micro batches fill."""
    config = config_of(plan)
    out = {"virtual_pipeline_model_parallel_size": None} if config.get("virtual_pipeline_model_parallel_size") else {}
    micro, whole = config.get("micro_batch_size"), config.get("global_batch_size")
    if type(micro) is int and type(whole) is int and micro > 0 and (whole % (micro * ranks) or whole < micro * ranks):
        return {**out, "global_batch_size": micro * ranks}
    return out


def read_base(path: str) -> dict[str, Any]:
    """The model's settings of a YAML file that a config is to be based on."""
    base: dict[str, Any] = plain(unwrap(read_config(path)))
    if bool(base.get("mcore_gpt")) != bool(base.get("transformer_engine")):
        raise Fault(
            "bad-config", f"{path} has only one of mcore_gpt and transformer_engine on, which the script refuses",
            help="set both to true, or both to false",
        )  # fmt: skip
    return base


def tokenizer_name(plan: Plan) -> str:
    """The name in the archive of the config's tokenizer model; empty where it holds none."""
    said = str(value_at(config_of(plan), ("tokenizer", "model")) or "")
    return said.removeprefix(REFERENCE) if said.startswith(REFERENCE) else ""


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
