"""`ckptc convert`, `compile` and `run`: from options to a plan, and from a plan to files and a summary."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from ..usage import BadValue
from . import options
from .parse import Argument, Command, Option, path

if TYPE_CHECKING:
    from ..planning.planned import Plan

PLAN = Argument("PLAN", "A plan that `ckptc compile -o` wrote.", path)
TOKENIZER = Option(("--tokenizer",), "The tokenizer for NeMo: a SentencePiece model, or a folder of HuggingFace's (default: the source's).", "PATH")
CONFIG_BASE = Option(("--config-base",), "A config whose settings the target's config has where the model says nothing.", "FILE")
SET_CONFIG = Option(("--set-config",), "Set a key of the target's config; KEY.KEY for one within another. May be repeated.", "KEY=VALUE", many=True)
ARTIFACT = Option(
    ("--artifact",), "A file in the place of the one that NeMo's config names at KEY, as tokenizer.model. May be repeated.", "KEY=FILE", many=True
)
VERIFY = Option(("--verify",), "Read back what was written and compare it with SRC, before it gets its name.", default=False)
OPTIMIZER = Option(("--optimizer",), "Take zero1 optimizer state (SRC/optim) along.", default=False)
SINGLE_FILE = Option(("--single-file",), "All tensors in one file of this name, and nothing else.", "NAME")
COMPARE_ALL = Option(("--compare-all-copies",), "Also compare tensors that every rank holds a copy of.", default=False)
EMIT = Option(("--emit",), "Write a self-contained Python module instead of a plan file.", "python")
OUTPUT = Option(("-o", "--output"), "Where to write (default: print).", "FILE", path)


def asked_of(said: dict[str, Any]) -> dict[str, Any]:
    """What `api.plan` is asked for by the options of `ckptc convert`, beside the source."""
    return {
        **options.compiling(said), "mapping": said["mapping"], "compare_all": said["compare_all_copies"], "optimizer": said["optimizer"],
        "dp": said["dp"], "tokenizer": said["tokenizer"], "config_base": said["config_base"], "set_config": options.config_values(said["set_config"]),
        "artifacts": options.pairs_of(said["artifact"], "--artifact", needed=True),
    }  # fmt: skip


def convert(said: dict[str, Any]) -> None:
    asked = asked_of(said)
    from .. import api
    from ..hub import find_source
    from ..planning.given_tokenizer import check_tokenizer
    from ..runtime.path_names import refuse_remote_target
    from .running import Running

    running = Running.of(said)
    refuse_remote_target(said["dst"])
    if said["single_file"] is not None and any(asked[name] for name in ("config_base", "set_config", "artifacts", "tokenizer")):
        raise BadValue("--single-file", "no config or tokenizer is written beside the file")
    if said["tokenizer"] is not None:
        check_tokenizer(said["tokenizer"], said["to"], said["mapping"])  # before anything is fetched
    place = find_source(said["src"], said["revision"], running.talks)
    plan = api.plan(place, **asked)
    if said["single_file"] is not None:
        from ..planning.single_file import into_single_file

        plan = into_single_file(plan, said["single_file"])
    judge = None
    if said["verify"]:
        from ..checking.written import judge_of

        assert plan.source is not None
        judge = judge_of(plan.source, plan.data, asked, {"memory": running.memory})
    running.execute(plan, said["src"], place, said["dst"], judge)


def run(said: dict[str, Any]) -> None:
    from ..hub import find_source
    from ..planning.planned import load_plan
    from .running import Running

    running = Running.of(said)
    loaded = load_plan(said["plan"])
    place = find_source(said["src"], said["revision"], running.talks)
    running.execute(loaded, said["src"], place, said["dst"])


def compile(said: dict[str, Any]) -> None:
    output = said["output"]
    if said["emit"] not in (None, "python"):
        raise BadValue("--emit", f"`{said['emit']}` cannot be emitted, only `python`")
    plan = compiled(said)
    for note in plan.notes:
        print(f"note: {note}", file=sys.stderr)
    if said["emit"]:
        text = plan.emit(output)
        if output is None:
            print(text, end="" if text.endswith("\n") else "\n")
    elif output is not None:
        plan.save(output)
    else:
        print(plan)
    if output is not None:
        print(f"{output}: {output.stat().st_size:,} bytes")


def compiled(said: dict[str, Any]) -> Plan:
    """A plan from options alone."""
    asked = options.compiling(said)
    from .. import api

    return api.compile(said["mapping"], **asked)


CONVERT = Command(
    "Convert a checkpoint to another layout or degree.",
    (options.SOURCE, options.DESTINATION),
    (
        ("What to write", (options.TO, *options.PARAMETERS, options.FORMAT, options.DTYPE, options.MAX_SHARD_SIZE, SINGLE_FILE, OPTIMIZER, options.DP)),
        ("What is read", (options.FROM, options.FAMILY, options.CONFIG, options.MAPPING, options.REVISION, options.FROM_SET, options.FROM_STAGES, options.COPIES, COMPARE_ALL)),
        ("Configs", (options.ACCEPT, options.MODEL_ID, TOKENIZER, CONFIG_BASE, SET_CONFIG, ARTIFACT)),
        ("How it runs", (options.DRY_RUN, VERIFY, options.RESUME, options.MANIFEST, *options.WRITING, *options.WORK, *options.REPORTING)),
    ),
    convert,
)  # fmt: skip

RUN = Command(
    "Run a saved plan on a checkpoint.",
    (PLAN, options.SOURCE, options.DESTINATION),
    (("Options", (options.REVISION, options.COPIES, options.DRY_RUN, options.RESUME, options.MANIFEST, *options.WRITING, options.MAX_SHARD_SIZE, *options.WORK, *options.REPORTING)),),
    run,
)

COMPILE = Command(
    "Compile and prove a plan without a checkpoint.",
    (options.MAPPING_NAME,),
    (
        ("What to write", (options.TO, *options.PARAMETERS, options.FORMAT, options.DTYPE)),
        ("What is read", (options.FROM_NAMED, options.FAMILY, options.CONFIG, options.FROM_SET, options.FROM_STAGES)),
        ("Configs", (options.ACCEPT, options.MODEL_ID)),
        ("The plan", (EMIT, OUTPUT)),
    ),
    compile,
)
