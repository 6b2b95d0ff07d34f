"""The path of a config in, its text or its keys out. It may lie within an archive, or within a training run's file."""

from __future__ import annotations

import errno
import json
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..runtime.fault import Fault
from ..runtime.files.read_window import read_at
from ..runtime.formats.distributed.torch_dist_read import COMMON
from ..runtime.formats.megatron.rank_file import ARGS
from ..runtime.formats.nemo.archive import CONFIG, SUFFIX, open_archive
from ..runtime.formats.nemo.interpolation import MARK, resolve
from ..runtime.formats.nemo.training_run import RUN_SUFFIX, read_settings
from ..runtime.formats.runs.run_arguments import read_arguments
from ..runtime.formats.runs.run_config import FILE as RUN_CONFIG
from ..runtime.formats.runs.run_config import arguments_of_run
from ..runtime.path_names import did_you_mean, refuse_remote_source
from ..runtime.situations.situations import refuse_start
from ..runtime.yaml_tree import load_yaml

YAML = (".yaml", ".yml")


def read_config(path: str | Path) -> dict[str, Any]:
    """A config file as a dictionary, JSON or YAML by its ending, with OmegaConf's interpolations worked out."""
    path = Path(path)
    if not path.exists():
        refuse_remote_source(path)
    if path.is_dir():
        path = path / "config.json"
    path = within_archive(path)
    try:
        text = read_text(path)
    except OSError as e:
        raise Fault("no-config", f"{path}: {e.strerror}", help=did_you_mean(path) or "name the model's config with --config") from None
    except UnicodeDecodeError:
        raise Fault("bad-config", f"{path} is not text") from None
    return parse_config(text, path)


def called(path: Path) -> Path:
    """The name by which config blocks know a file: a run's config of Megatron-Bridge is read as its arguments."""
    return path.with_name(ARGS) if path.name == RUN_CONFIG else path


def within_archive(path: Path) -> Path:
    """The config of an archive, as if the archive were a folder."""
    return path / CONFIG if path.suffix == SUFFIX and path.is_file() else path


def read_text(path: Path) -> str:
    """The text of a config: of a file, or from within an archive or a training run's file, named as if that were a folder.

    The arguments of a run with Megatron-LM are called `args`, in what holds them.
    """
    if path.name == ARGS and not path.is_file():
        return json.dumps(read_arguments(str(path.parent)) or {})
    of_run = path.parent.suffix == RUN_SUFFIX or path.parent.name == COMMON
    if not (of_run or path.parent.suffix == SUFFIX) or not path.parent.is_file():
        return path.read_text(encoding="utf-8")
    if of_run:
        import yaml

        settings = read_settings(str(path.parent))
        if settings is None:
            raise FileNotFoundError(errno.ENOENT, "the file holds no settings of the model")
        return str(yaml.safe_dump(settings, sort_keys=False, allow_unicode=True))
    archive = open_archive(str(path.parent))
    member = archive.members.get(path.name)
    if member is None:
        raise FileNotFoundError(errno.ENOENT, f"the archive holds no {path.name}")
    return bytes(read_at(archive.path, member.at, member.nbytes)).decode()


@lru_cache(maxsize=8)
def _yaml(text: str) -> Any:
    """What a YAML text holds. Every family that may fit asks, and parsing takes long."""
    return load_yaml(text)


def parse_config(text: str, path: Path) -> dict[str, Any]:
    is_yaml = path.suffix in YAML
    try:
        data = deepcopy(_yaml(text)) if is_yaml else json.loads(text)
    except Exception as e:
        refuse_start(str(path), str(path))
        if not is_yaml and path.suffix != ".json":
            raise Fault("bad-config", f"{path} is neither JSON nor called as YAML", help="name a config such as config.json or model_config.yaml") from None
        raise Fault("bad-config", f"{path} cannot be read: {(str(e) or type(e).__name__).splitlines()[0]}") from None
    if not isinstance(data, dict):
        raise Fault("bad-config", f"{path} holds no settings: a mapping of keys to values is needed")
    if path.name == RUN_CONFIG:
        return arguments_of_run(data, str(path))
    return resolve(data, str(path)) if is_yaml and MARK in text else data
