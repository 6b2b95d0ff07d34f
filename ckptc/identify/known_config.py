"""A model id of NeMo 2 in; the config that its class there stands for, as a file to read, out."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

from ..nemo.nemo2_models import find_model
from ..runtime.formats.nemo.archive import CONFIG


def known_config(model_id: str | None) -> tuple[Path, str] | None:
    """The path of a NeMo 1 config of this model, and what to say of it; None where the id tells no sizes.

    NeMo 2's import takes bare weights and an id: all sizes are those of the id's class. The file is there as long as the
    process is.
    """
    if model_id is None:
        return None
    model = find_model(model_id)
    if not model.nemo_config:
        return None
    note = f"there is no {CONFIG} with the checkpoint: sizes and settings are those of NeMo 2's {model.config.name} for {model_id}"
    return Path(_folder(model_id).name) / CONFIG, note


@lru_cache(maxsize=4)
def _folder(model_id: str) -> tempfile.TemporaryDirectory[str]:
    import yaml

    folder = tempfile.TemporaryDirectory(prefix="ckptc-config-")
    text = str(yaml.safe_dump(find_model(model_id).nemo_config, sort_keys=False))
    (Path(folder.name) / CONFIG).write_text(text, encoding="utf-8")
    return folder
