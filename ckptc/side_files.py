"""The files beside the tensors: the target's config, and what is carried over byte for byte."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

from . import library
from .choose import root_of
from .compiler.link import Family, FlatLayout
from .compiler.resolve import Side
from .compiler.sizes import config_of
from .compiler.write_config import config_text
from .runtime.checkpoint import Checkpoint


def side_files(
    checkpoint: Checkpoint, source: Side, target: Side, family: Family, keys_layout: FlatLayout | None, config: Path | None, dtype: str | None
) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, Path], ...]]:
    """The target's config as text, and the files to carry over: from the source, or from beside the config."""
    files = target_config(target, family, keys_layout, config)
    written = {name for name, _ in files}
    extra: dict[str, Path] = {}
    for folder in dict.fromkeys(([root_of(checkpoint)] if Path(checkpoint.path).is_dir() else []) + ([config.parent] if config else [])):
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.name not in written and any(fnmatch(path.name, g) for g in target.carry):
                extra.setdefault(path.name, path)
    return files, tuple(extra.items())


def target_config(
    target: Side, family: Family, keys_layout: FlatLayout | None, config: Path | None
) -> tuple[tuple[str, str], ...]:
    """Byte for byte the config at hand where it is the target's own, else written from sizes and settings."""
    layout = family.layout(target.layout)
    block = config_of(layout)
    if block is None or block.read_only:
        return ()
    if keys_layout is not None and keys_layout.name == layout.name and config is not None:
        return ((block.file, config.read_text(encoding="utf-8")),)
    return ((block.file, config_text(block, target, library.read_template(block))),)
