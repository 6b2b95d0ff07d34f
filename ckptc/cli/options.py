"""The options that several commands take, and what is typed after them: texts in, values out, or a usage error."""

from __future__ import annotations

from typing import Any

from ..choices.typed_text import Text
from ..usage import BadValue
from .parse import Argument, Option, count, path

SOURCE = Argument("SRC", "What to read: a folder, a file, or ORG/NAME on the hub.")
DESTINATION = Argument("DST", "Where to write.", path)
MAPPING_NAME = Argument("MAPPING", "A .ckmap file, or the name of one that ships.")

JSON = Option(("--json",), "Print a machine-readable report on standard output.", default=False)
REVISION = Option(("--revision",), "The branch, tag or commit to read, if SRC is on the hub.", "REV")
CONFIG = Option(("--config",), "The model's config (default: the one in the checkpoint).", "FILE")
MAPPING = Option(("--mapping",), "A mapping of your own (default: those that ship).", "FILE|NAME")
FAMILY = Option(("--family",), "The model family (default: found from files and config).", "NAME")
FROM = Option(("--from",), "The layout to read (default: found from the files).", "LAYOUT")
FROM_NAMED = Option(("--from",), "The layout to read.", "LAYOUT", required=True)
FROM_SET = Option(("--from-set",), "A parameter of the source. May be repeated.", "KEY=VALUE", many=True)
FROM_STAGES = Option(("--from-stages",), "The same as --stages, of the source (default: found from its files).", "STAGES")
TO = Option(("--to",), "The layout to write; `ckptc list` has them all.", "LAYOUT", required=True)
FORMAT = Option(("--format",), "The container to write, where a layout has several.", "FORMAT")
DTYPE = Option(("--dtype",), "Cast floating tensors: bfloat16, float16, float32, ...", "DTYPE")
MODEL_ID = Option(("--model-id",), "The model for NeMo 2, by its id or its family (default: the family).", "ID")
ACCEPT = Option(("--accept",), "Go on although this config key or setting cannot be carried over (repeatable).", "KEY", many=True)
DP = Option(("--dp",), "Data parallel degree of optimizer state (default: the source's).", "N", count)
DEGREES = (
    Option(("--tp", "--tensor-parallel-size", "--tensor-model-parallel-size"), "Tensor parallel degree.", "N", count),
    Option(("--pp", "--pipeline-parallel-size", "--pipeline-model-parallel-size"), "Pipeline parallel degree.", "N", count),
    Option(("--vpp", "--virtual-pp-size"), "Virtual stages (model chunks) per pipeline stage.", "N", count),
    Option(("--ep", "--expert-parallel-size"), "Expert parallel degree.", "N", count),
    Option(("--etp", "--expert-tensor-parallel-size"), "Tensor parallel degree of each expert (default: that of the rest).", "N", count),
)
PARAMETERS = (
    *DEGREES,
    Option(("--set",), "A parameter of the target (`ckptc list LAYOUT`), or of the model. May be repeated.", "KEY=VALUE", many=True),
    Option(
        ("--stages",),
        "Layers of each stage: 0-6,7-13 or [[0,1],[2,3]]; how many, 7,7; or Megatron's layout, Et*6|t*8,L (default: the layout's own rule).",
        "STAGES",
    ),
)

MEMORY, WORKERS, SHARD = "512MiB", 2, "5GB"
MAX_SHARD_SIZE = Option(("--max-shard-size",), "The most bytes of one shard, where files are sharded.", "SIZE", default=SHARD)
WRITING = (
    Option(("--overwrite",), "Replace DST if it exists.", default=False),
    Option(("--merge",), "Write into DST beside what is there.", default=False),
)
RESUME = Option(("--resume",), "Go on with what an ended run with --resume has left, or begin one that can be resumed.", default=False)
MANIFEST = Option(("--manifest",), "Write ckptc-manifest.json: checksums of all files and tensors.", default=False)
DRY_RUN = Option(("--dry-run",), "Print the plan and its totals, and write nothing.", default=False)
COPIES = Option(
    ("--compare-copies",), "Compare the source's declared copies before anything is written.", default=True, off="--no-compare-copies"
)
WORK = (
    Option(("--memory",), "The most buffer memory to use.", "SIZE", default=MEMORY),
    Option(("--workers",), "Worker threads.", "N", count, WORKERS),
)
REPORTING = (
    Option(("--progress",), "Show progress on standard error.", default=True, off="--no-progress"),
    Option(("--quiet", "-q"), "Print nothing but errors.", default=False),
    JSON,
)


def compiling(said: dict[str, Any]) -> dict[str, Any]:
    """What `api.plan` and `api.compile` are asked for by the options that these commands share."""
    degrees = {option.dest: said[option.dest] for option in DEGREES}
    return {
        "to": said["to"],
        "from_": said["from"],
        "family": said["family"],
        "config": said["config"],
        "settings": settings(said["set"], "--set", **degrees),
        "from_settings": settings(said["from_set"], "--from-set"),
        "stages": stages(said["stages"]),
        "from_stages": stages(said["from_stages"], "--from-stages"),
        "format": said.get("format"),
        "dtype": said.get("dtype"),
        "model_id": said.get("model_id"),
        "accept": said.get("accept") or (),
    }


def settings(pairs: list[str] | None, option: str, **degrees: int | None) -> dict[str, Any]:
    """`key=value` texts, and the degrees that were given, as one dictionary. A name may stand only once.

    The texts are read when it is known what they are for.
    """
    found: dict[str, Any] = {name: degree for name, degree in degrees.items() if degree is not None}
    for key, text in pairs_of(pairs, option, needed=True).items():
        name = key.replace("-", "_")
        if name in found:
            raise BadValue(option, f"`{name}` is given twice")
        found[name] = Text(text)
    return found


def pairs_of(pairs: list[str] | None, option: str, needed: bool = False) -> dict[str, str]:
    """`key=value` texts as a dictionary, or a usage error, also where a value that is `needed` is empty."""
    if not pairs:
        return {}
    from ..choices.pairs import split

    try:
        found = split(pairs)
    except ValueError as problem:
        raise BadValue(option, str(problem)) from None
    if bare := [key for key, text in found.items() if needed and not text]:
        raise BadValue(option, f"`{bare[0]}=` has no value")
    return found


def config_values(pairs: list[str] | None) -> dict[str, Any]:
    """What `--set-config` says."""
    if not pairs:
        return {}
    from ..choices.pairs import config_value

    return {key: config_value(text) for key, text in pairs_of(pairs, "--set-config").items()}


def stages(text: str | None, option: str = "--stages") -> Any:
    """What is said of stages, as the Python face takes it: lists of layers, or another of the forms of `stage_text`."""
    if text is None:
        return None
    from ..choices.stage_text import FORMS, parse_stages

    try:
        return parse_stages(text)
    except (ValueError, TypeError, RecursionError) as problem:
        own = type(problem) is ValueError and str(problem).startswith("`")
        raise BadValue(option, str(problem) if own else f"`{text}` is neither of the form {FORMS}") from None
