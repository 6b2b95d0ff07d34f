"""A checkpoint in, where its zero1 optimizer state is out."""

from __future__ import annotations

import os

from ..runtime.checkpoint.checkpoint import Checkpoint

FOLDER = "optim"


def state_folder(checkpoint: Checkpoint) -> str:
    return os.path.join(checkpoint.path, checkpoint.tag, FOLDER)
