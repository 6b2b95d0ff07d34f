"""The files beside the tensors: the target's config, and what is carried over byte for byte."""

from __future__ import annotations

from pathlib import Path

from . import library
from .artifacts import name_artifacts
from .choose import root_of
from .compiler.link import Family, FlatLayout
from .compiler.resolve import Side
from .compiler.sizes import config_of
from .compiler.write_config import config_text
from .config_file import read_text
from .nemo_config import of_model
from .runtime.carry import choose, named
from .runtime.checkpoint import Checkpoint
from .runtime.nemo_archive import CONFIG
from .runtime.window import SideFile

Texts = tuple[tuple[str, str], ...]


def side_files(
    checkpoint: Checkpoint, source: Side, target: Side, family: Family, keys_layout: FlatLayout | None, config: Path | None, dtype: str | None
) -> tuple[Texts, tuple[SideFile, ...]]:
    """The target's config as text, and the files to carry over: from the source, or from beside the config."""
    files = target_config(target, family, keys_layout, config, dtype)
    written = {name for name, _ in files}
    there: dict[str, SideFile] = {}
    for each in named(beside(checkpoint, config), target.format):
        there.setdefault(each.name, each)
    carried = tuple(each for each in choose(there.values(), target.carry) if each.name not in written)
    if target.format != "nemo":
        return files, carried
    texts = dict(files)
    if CONFIG in texts:
        texts[CONFIG], carried = name_artifacts(texts[CONFIG], carried, there.values())
    return tuple(texts.items()), carried


def beside(checkpoint: Checkpoint, config: Path | None) -> list[SideFile]:
    """The files beside the tensors, and those beside the config."""
    found = list(checkpoint.beside) if checkpoint.format == "nemo" else []
    folders = [root_of(checkpoint)] if Path(checkpoint.path).is_dir() else []
    folders += [config.parent] if config and config.parent.is_dir() else []
    for folder in dict.fromkeys(folders):
        files = (path for path in sorted(folder.iterdir()) if path.is_file())
        found += [SideFile(path.name, str(path), 0, path.stat().st_size) for path in files]
    return found


def target_config(
    target: Side, family: Family, keys_layout: FlatLayout | None, config: Path | None, dtype: str | None = None
) -> Texts:
    """The config at hand, byte for byte, where it is the target's own, else written from sizes and settings."""
    layout = family.layout(target.layout)
    block = config_of(layout)
    if block is None or block.read_only:
        return ()
    own = keys_layout is not None and keys_layout.name == layout.name and config is not None
    text = read_text(config) if own and config else config_text(block, target, library.read_template(block))
    return ((block.file, of_model(text, target.ranks, dtype) if Path(block.file).name == CONFIG else text),)
