"""A .nemo file's SentencePiece model in, a folder of HuggingFace's tokenizer out."""

from __future__ import annotations

import json
import os

from ..configs.yaml_text import value_at
from ..runtime.checkpoint.checkpoint import Checkpoint
from ..runtime.engine.destination import check_file, write_file
from ..runtime.fault import Fault
from ..runtime.files.read_window import read_at
from ..runtime.files.window import SideFile
from ..runtime.formats.nemo.archive import CONFIG
from .artifacts import REFERENCE

MODEL, SETTINGS = "tokenizer.model", "tokenizer_config.json"
# What the model does not say: the class that reads it. Its tokens <s>, </s> and <unk> are that class's own.
CONTENT = {"tokenizer_class": "LlamaTokenizer", "legacy": False}


def sentencepiece_of(checkpoint: Checkpoint) -> SideFile | None:
    """The SentencePiece model that the config of a .nemo file names, or None where it names none of its files."""
    name = str(value_at(checkpoint.config(CONFIG) or {}, ("tokenizer", "model"))).removeprefix(REFERENCE)
    return next((each for each in checkpoint.beside if each.name == name), None)


def named_model(path: str) -> SideFile:
    """The SentencePiece model at `path`, or in the folder there."""
    place = os.path.join(path, MODEL) if os.path.isdir(path) else path
    if not os.path.isfile(place):
        raise Fault("no-file", f"there is no file `{place}`", help="name the tokenizer's .model file, or its folder")
    return SideFile(MODEL, place, 0, os.path.getsize(place))


def write_tokenizer(model: SideFile, folder: str) -> None:
    """tokenizer.model, and settings where there are none, into the folder. What else is there stays."""
    place, settings = os.path.join(folder, MODEL), os.path.join(folder, SETTINGS)
    data = bytes(read_at(model.path, model.at, model.nbytes))
    check_file(place, overwrite=True)
    write_file(place, data)
    if not os.path.exists(settings):
        write_file(settings, (json.dumps(CONTENT, indent=2) + "\n").encode())
