"""A .nemo file's SentencePiece model in, a folder of HuggingFace's tokenizer out."""

from __future__ import annotations

import json
import os

from ..configs.yaml_text import value_at
from ..runtime.checkpoint.checkpoint import Checkpoint, open_checkpoint
from ..runtime.engine.destination import check_file, write_file
from ..runtime.fault import Fault
from ..runtime.files.read_window import read_at
from ..runtime.files.window import SideFile
from ..runtime.formats.nemo.archive import CONFIG, SUFFIX
from .artifacts import REFERENCE
from .tokenizer import refuse_other_kind

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
        title = f"the folder {path} holds no {MODEL}" if os.path.isdir(path) else f"there is no file `{path}`"
        raise Fault("no-file", title, help="name the tokenizer's .model file, or its folder")
    refuse_other_kind(place)
    return SideFile(MODEL, place, 0, os.path.getsize(place))


def tokenizer_of(path: str) -> SideFile:
    """The SentencePiece model that `path` is, or holds: a .model file, a folder with one, or a .nemo archive, packed or not."""
    if not (path.endswith(SUFFIX) or os.path.isfile(os.path.join(path, CONFIG))):
        return named_model(path)
    model = sentencepiece_of(open_checkpoint(path))
    if model is None:
        raise Fault("no-tokenizer", f"{path} holds no SentencePiece model", help="name the tokenizer's .model file")
    return model


def write_tokenizer(source: str, folder: str, overwrite: bool = False) -> tuple[str, ...]:
    """`tokenizer.model`, and `tokenizer_config.json` where there is none, into the folder. What else is there stays.

    `source` is as `tokenizer_of` takes it. The names of the files that were written. Raises `Fault`, with nothing written.
    """
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise Fault("destination-exists", f"{folder} is a file, and a folder is written to", help="name a folder")
    place, settings = os.path.join(folder, MODEL), os.path.join(folder, SETTINGS)
    check_file(place, overwrite=overwrite)
    model = tokenizer_of(source)
    write_file(place, bytes(read_at(model.path, model.at, model.nbytes)))
    if os.path.exists(settings):
        return (MODEL,)
    write_file(settings, (json.dumps(CONTENT, indent=2) + "\n").encode())
    return MODEL, SETTINGS
