"""The `dist_ckpt_*` settings of a NeMo 1 config in, the arguments of NeMo 2's MegatronStrategy out.

They say how distributed checkpoints are saved and loaded, and change no value of any tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..configs.config_file import read_config
from ..dsl.nearest import nearest
from ..runtime.fault import Fault
from ..runtime.formats.nemo.archive import CONFIG, unwrap

PREFIX = "dist_ckpt_"
FORMATS = ("zarr", "torch_dist")
STRICTNESS = (
    "assume_ok_unexpected", "log_unexpected", "log_all", "raise_unexpected", "raise_all", "return_unexpected", "return_all", "ignore_all",
)  # fmt: skip

ZARR = "Megatron-core 0.16 removed zarr: convert the checkpoint to torch_dist, and give save_ckpt_format='torch_dist' from then on"
RENAMED = "NeMo's migration page writes `ckpt_load_on_device`; MegatronStrategy's argument is `ckpt_load_directly_on_device`"


@dataclass(frozen=True)
class Setting:
    """One setting of NeMo 1 and the argument it becomes. `usual` is what NeMo 1 does without the setting."""

    key: str
    argument: str
    usual: Any
    allowed: str
    is_allowed: Callable[[Any], bool]
    always: bool = True


@dataclass(frozen=True)
class Argument:
    name: str
    value: Any
    key: str
    is_default: bool


@dataclass(frozen=True)
class Strategy:
    arguments: tuple[Argument, ...]
    notes: tuple[str, ...]


def _switch(key: str, argument: str, usual: bool, always: bool = True) -> Setting:
    return Setting(key, argument, usual, "true or false", lambda value: type(value) is bool, always)


SETTINGS = (
    Setting("dist_ckpt_format", "save_ckpt_format", "torch_dist", "zarr or torch_dist", lambda value: value in FORMATS),
    _switch("dist_ckpt_load_on_device", "ckpt_load_directly_on_device", True),
    _switch("dist_ckpt_parallel_save", "ckpt_parallel_save", False),
    _switch("dist_ckpt_parallel_save_within_dp", "ckpt_parallel_save_within_dp", False, always=False),
    _switch("dist_ckpt_parallel_load", "ckpt_parallel_load", False),
    Setting(
        "dist_ckpt_torch_dist_multiproc", "ckpt_torch_dist_multiproc", None, "a number of processes, or null",
        lambda value: value is None or (type(value) is int and value > 0),
    ),
    _switch("dist_ckpt_assume_constant_structure", "ckpt_assume_constant_structure", False),
    _switch("dist_ckpt_parallel_dist_opt", "ckpt_parallel_save_optim", True),
    Setting(
        "dist_ckpt_load_strictness", "ckpt_load_strictness", None, f"null, or one of {', '.join(STRICTNESS)}",
        lambda value: value is None or value in STRICTNESS, always=False,
    ),
)  # fmt: skip


def read_strategy(path: str) -> Strategy:
    """The arguments for a model_config.yaml, an archive that holds one, or the folder that it was unpacked to."""
    folder = Path(path).is_dir()
    try:
        config = read_config(Path(path) / CONFIG if folder else path)
    except Fault as fault:
        if fault.code != "no-config":
            raise
        raise Fault(fault.code, fault.title, help="name a model_config.yaml, or an archive or a folder that holds one") from None
    return strategy_of(unwrap(config), path)


def strategy_of(config: Mapping[str, Any], path: str) -> Strategy:
    """The arguments for a model's config. `path` is how the config is called in faults and notes."""
    given = {str(key): value for key, value in config.items() if str(key).startswith(PREFIX)}
    notes = [f"{path} has no {PREFIX}* settings: all values are the defaults of NeMo 1"] if not given else []
    arguments = tuple(_argument(setting, given, path) for setting in SETTINGS if setting.always or setting.key in given)
    if given.get("dist_ckpt_format") == "zarr":
        notes.append(ZARR)
    notes.append(RENAMED)
    known = [setting.key for setting in SETTINGS]
    for key in given:
        if key not in known:
            close = nearest(key, known)
            notes.append(f"`{key}` of {path} is not known, and becomes no argument" + (f"; is `{close}` meant?" if close else ""))
    return Strategy(arguments, tuple(notes))


def _argument(setting: Setting, given: Mapping[str, Any], path: str) -> Argument:
    if setting.key not in given:
        return Argument(setting.argument, setting.usual, setting.key, True)
    value = given[setting.key]
    if not setting.is_allowed(value):
        raise Fault(
            "bad-setting", f"{setting.key} in {path} is `{value}`, and must be {setting.allowed}",
            help=f"correct {setting.key} in the config, or leave it out for NeMo 1's default, {setting.usual!r}",
        )  # fmt: skip
    return Argument(setting.argument, value, setting.key, False)


def shown(strategy: Strategy) -> str:
    """The arguments as the call they belong to, each with the setting it comes from, and the notes under it."""
    calls = [f"    {each.name}={each.value!r}," for each in strategy.arguments]
    width = max(len(call) for call in calls)
    origins = [f"default: {each.key} is not set" if each.is_default else each.key for each in strategy.arguments]
    lines = [f"{call.ljust(width)}  # {origin}" for call, origin in zip(calls, origins, strict=True)]
    return "\n".join(["MegatronStrategy(", *lines, ")", *(f"note: {note}" for note in strategy.notes)])


def as_data(strategy: Strategy) -> dict[str, Any]:
    """The same for programs."""
    return {
        "arguments": {each.name: each.value for each in strategy.arguments},
        "settings": {each.name: each.key for each in strategy.arguments},
        "defaults": [each.name for each in strategy.arguments if each.is_default],
        "notes": list(strategy.notes),
    }
