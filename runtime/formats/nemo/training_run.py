"""Checkpoints that a NeMo training run keeps: one file per rank, of one name, and the model's settings within each.

    DIR/NAME.ckpt                              the whole model
    DIR/mp_rank_01/NAME.ckpt                   where only tensor parallel ranks divide it
    DIR/tp_rank_01_pp_rank_002/NAME.ckpt       where stages do too
    DIR/NAME/common.pt                         beside a distributed checkpoint, all but the tensors

A file holds a dict: `state_dict`, `hyper_parameters`, and what training needs besides.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

from ...fault import Fault
from ...files.format import Held
from ..torch.pickle_names import Stray
from ..torch.torch_file import read_value
from .archive import WEIGHTS

RUN_SUFFIX = ".ckpt"
COMMON = "common.pt"  # of a distributed checkpoint, all but the tensors
NEURON_NAME = "model_optim_rng.ckpt"  # of Neuron NeMo Megatron, whose files keep their names
MADE_BY, SETTINGS = "pytorch-lightning_version", "hyper_parameters"  # keys of such a file
_FOLDER = re.compile(r"mp_rank_\d+|tp_rank_\d+_pp_rank_\d+")
_PLAIN = (str, int, float, bool, type(None))


def rank_files(folder: str, name: str) -> list[str]:
    """The files called `name` in the rank folders of `folder`, relative to it."""
    try:
        inner = [each for each in sorted(os.listdir(folder or ".")) if _FOLDER.fullmatch(each)]
    except OSError:
        return []
    return [f"{each}/{name}" for each in inner if os.path.isfile(os.path.join(folder, each, name))]


def refuse_several(folder: str, files: list[str]) -> None:
    """Which of several checkpoints in the rank folders of `folder` is meant must be said."""
    ranks = [file.split("/") for file in files if file.endswith(RUN_SUFFIX)]
    names = sorted({parts[1] for parts in ranks if len(parts) == 2 and _FOLDER.fullmatch(parts[0])})
    if len(names) > 1:
        raise Fault(
            "several-checkpoints", f"`{folder}` holds {len(names)} checkpoints in its rank folders",
            notes=(*names[:8], *([f"... and {len(names) - 8} more"] if len(names) > 8 else [])),
            help=f"name the one to read: {os.path.join(folder, names[-1])}",
        )  # fmt: skip


def called_as_in_archives(file: str) -> str:
    """The name of a rank's file with `model_weights.ckpt` in place of its own, by which layouts know it."""
    folder, slash, _ = file.rpartition("/")
    return f"{folder}{slash}{WEIGHTS}"


def is_of_training(files: Sequence[str], others: Sequence[tuple[str, str]]) -> bool:
    """Whether all files are what a training run with Lightning saved, under a name that the run chose. `others` are (file, key)
    of what they hold beside tensors."""
    made = {file for file, key in others if key == MADE_BY}
    return made.issuperset(files) and all(file.endswith(RUN_SUFFIX) and not file.endswith(NEURON_NAME) for file in files)


def settings_of_ranks(held: Held) -> str:
    """The first file of a training run's ranks, if it holds the model's settings; else ""."""
    keys = {key for _, key in held.others}
    return held.entries[0].window.path if held.entries and {SETTINGS, MADE_BY} <= keys else ""


def settings_beside(held: Held) -> str:
    """The common.pt of a training run's distributed checkpoint, if it holds the model's settings; else ""."""
    common = os.path.join(held.path, held.tag, COMMON)
    return common if not held.archive and os.path.isfile(common) and holds_settings(common) else ""


def holds_settings(path: str) -> bool:
    """Whether the file at `path` is one that holds a model's settings."""
    try:
        _, top = read_value(path, path, strays=[])
    except Fault:
        return False
    return isinstance(top, dict) and SETTINGS in top


def read_settings(path: str) -> dict[str, Any] | None:
    """The model's settings that the file at `path` holds, as plain values; None if it holds none."""
    strays: list[str] = []
    _, top = read_value(path, path, strays=strays)
    held = _mapping(top.get(SETTINGS)) if isinstance(top, dict) else None
    if not held:
        if isinstance(top, dict) and isinstance(top.get(SETTINGS), Stray):
            raise _not_plain(path, "hyper_parameters", top[SETTINGS])
        return None
    within = held.get("cfg", held)
    settings = _mapping(within)
    if settings is None:
        raise _not_plain(path, "hyper_parameters.cfg", within)
    known: dict[int, Any] = {}
    return {str(key): _plain(path, value, str(key), known) for key, value in settings.items()}


def _mapping(value: Any) -> dict[Any, Any] | None:
    """A dict, or what Lightning keeps settings in: a class whose instances are one."""
    if isinstance(value, Stray) and value.name.endswith(".AttributeDict"):
        return value.items
    return value if isinstance(value, dict) else None


def _plain(path: str, value: Any, at: str, known: dict[int, Any], depth: int = 0) -> Any:
    """The value in dicts and lists of Python's own. `known` are those made so far: one that is held twice is made once."""
    held = _mapping(value)
    if isinstance(value, _PLAIN):
        return value
    if id(value) not in known:
        if depth < 50 and held is not None:
            known[id(value)] = {str(key): _plain(path, each, f"{at}.{key}", known, depth + 1) for key, each in held.items()}
        elif depth < 50 and type(value) in (list, tuple):
            known[id(value)] = [_plain(path, each, f"{at}.{i}", known, depth + 1) for i, each in enumerate(value)]
        else:
            raise _not_plain(path, at, value)
    return known[id(value)]


def _not_plain(path: str, at: str, value: Any) -> Fault:
    what = f"an object of {value.name}" if isinstance(value, Stray) else "no plain value"
    return Fault(
        "opaque-config", f"the settings in `{path}` cannot be read: `{at}` is {what}, and objects are not unpickled",
        notes=("nothing was imported or run",), help="name the model's config with --config, such as the hparams.yaml of the run",
    )  # fmt: skip
