"""The files beside the tensors: the target's config, and what is carried over byte for byte."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from . import library
from .artifacts import name_artifacts
from .choose import config_text as read_text
from .choose import root_of
from .compiler.link import Family, FlatLayout
from .compiler.resolve import Side
from .compiler.sizes import config_of
from .compiler.write_config import config_text
from .runtime.checkpoint import Checkpoint
from .runtime.nemo_archive import CONFIG, plain_name
from .runtime.window import SideFile

Texts = tuple[tuple[str, str], ...]


def side_files(
    checkpoint: Checkpoint, source: Side, target: Side, family: Family, keys_layout: FlatLayout | None, config: Path | None, dtype: str | None
) -> tuple[Texts, tuple[SideFile, ...]]:
    """The target's config as text, and the files to carry over: from the source, or from beside the config."""
    files = target_config(target, family, keys_layout, config)
    written = {name for name, _ in files}
    archived = target.format == "nemo"
    there: dict[str, SideFile] = {}
    for each in beside(checkpoint, config):
        there.setdefault(each.name if archived else plain_name(each.name), each)
    carried = tuple(
        SideFile(name, each.path, each.at, each.nbytes)
        for name, each in there.items()
        if name not in written and any(fnmatch(name, glob) or fnmatch(plain_name(name), glob) for glob in target.carry)
    )
    if not archived:
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


def target_config(target: Side, family: Family, keys_layout: FlatLayout | None, config: Path | None) -> Texts:
    """Byte for byte the config at hand where it is the target's own, else written from sizes and settings."""
    layout = family.layout(target.layout)
    block = config_of(layout)
    if block is None or block.read_only:
        return ()
    if keys_layout is not None and keys_layout.name == layout.name and config is not None:
        return ((block.file, read_text(config)),)
    return ((block.file, config_text(block, target, library.read_template(block))),)
