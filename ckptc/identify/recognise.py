"""A checkpoint in; the fault that says what it is instead of a model that can be converted, where that is known, out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..configs.config_file import read_config
from ..runtime.checkpoint.checkpoint import Checkpoint
from ..runtime.fault import Fault
from ..runtime.formats.nemo.archive import CONFIG, SUFFIX, unwrap
from ..runtime.situations.situations import (
    names_in,
    refuse_adapter,
    refuse_names,
    refuse_other,
    refuse_quantized,
    refuse_quantized_config,
    refuse_undecoded,
)

HF_CONFIG = "config.json"


def refuse_encoded(checkpoint: Checkpoint, config: str | Path | None) -> None:
    """Raises `Fault` where the tensors are not plain weights of a model: quantized ones, or an adapter's."""
    path = str(checkpoint.path)
    refuse_adapter(path, checkpoint.entries)
    refuse_undecoded(path, checkpoint.undecoded)
    refuse_quantized(path, checkpoint.entries, settings_of(checkpoint, config))


def refuse_said_encoded(checkpoint: Checkpoint, config: str | Path | None) -> None:
    """Raises `Fault` where the config of a checkpoint says that its weights are quantized, and none of them was decoded."""
    if any(entry.window.coded is not None for entry in checkpoint.entries):
        return
    refuse_quantized_config(str(checkpoint.path), settings_of(checkpoint, config))


def refuse_unknown(checkpoint: Checkpoint, config: str | Path | None) -> None:
    """For a checkpoint that no layout fits: raises `Fault` where it is known what it is."""
    path = os.path.join(checkpoint.path, checkpoint.tag) if checkpoint.tag else str(checkpoint.path)
    refuse_encoded(checkpoint, config)
    refuse_other(path, checkpoint.entries, settings_of(checkpoint, config))
    files = sorted({entry.file for entry in checkpoint.entries})
    refuse_names(path, files if any(files) else names_in(path))


def settings_of(checkpoint: Checkpoint, config: str | Path | None) -> Mapping[str, Any]:
    """What the model's config says: of the one that is given, else of the one beside the tensors. Nothing if it cannot be
    read, which is said where it is needed."""
    root = Path(checkpoint.path) / checkpoint.tag
    folder = root if root.is_dir() else root.parent
    places = [Path(config)] if config is not None else [folder / HF_CONFIG, folder / CONFIG]
    if config is None and root.suffix == SUFFIX and checkpoint.archive:
        places = [root / CONFIG]
    for place in places:
        try:
            said = dict(read_config(place))
        except Fault:
            continue
        return said if place.suffix == ".json" else unwrap(said)
    return {}
