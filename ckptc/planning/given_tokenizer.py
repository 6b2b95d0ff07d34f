"""The tokenizer that is given for NeMo, checked before a checkpoint is looked at."""

from __future__ import annotations

import os
from pathlib import Path

from ..hub import read_id
from ..library.mapping_files import families
from ..library.signs import signs_of
from ..nemo.tokenizer import MARKS, refuse_other_kind
from ..nemo.wanted import LAYOUT as NEMO_2
from ..runtime.fault import Fault
from ..runtime.formats.nemo.archive import CONFIG
from .edits import not_of_nemo


def holds_tokenizer(folder: str) -> bool:
    return any(name in MARKS or name.endswith(".model") for name in os.listdir(folder))


def check_tokenizer(given: str, to: str, mapping: str | Path | None) -> None:
    """Raises `Fault` where it is not there, or is no tokenizer that layout `to` may have. NeMo 1 fetches one from the hub, too."""
    configs = {signs_of(layout).config for family in families(mapping) for layout in family.layouts if layout.name == to}
    if configs and to != NEMO_2 and all(Path(file).name != CONFIG for file in configs):
        raise not_of_nemo(to)
    help = "name a SentencePiece model, or a folder with HuggingFace's tokenizer files"
    if os.path.isfile(given):
        refuse_other_kind(given)
    elif os.path.isdir(given):
        if not holds_tokenizer(given):
            raise Fault("no-file", f"the folder {given} holds no tokenizer", help=help)
    elif to == NEMO_2 or read_id(given) is None:
        raise Fault("no-file", f"there is no file `{given}`", help=help + (", or ORG/NAME on the hub" if to != NEMO_2 else ""))
