"""A model_config.yaml that was made for a .nemo archive and the files beside the source in, the same with a tokenizer that
NeMo 1 can load out, and what there is to say.

NeMo 1 makes its tokenizer of `tokenizer.library`: SentencePiece from an artifact, HuggingFace's by AutoTokenizer from the name
or the folder in `tokenizer.type`, which is no artifact (nemo/collections/nlp/modules/common/tokenizer_utils.py,
get_nmt_tokenizer).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..runtime.fault import Fault
from ..runtime.files.read_window import read_at
from ..runtime.files.window import SideFile

MARKS = ("tokenizer.json", "tokenizer_config.json", "vocab.json")  # HuggingFace's files, of which one is enough
MODEL = "tokenizer.model"
NOTE = "the config's tokenizer is "
HEAD = 1 << 12
# What a file that is called tokenizer.model may be, by how it begins. SentencePiece's models are no text.
KINDS = (
    ("tiktoken's ranks, as Llama 3's is from Meta", re.compile(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n")),
    ("JSON", re.compile(rb"\s*\{\s*[\"}]")),
    ("a pointer of git-lfs, and not the file itself", re.compile(rb"version https://git-lfs")),
    ("an archive", re.compile(rb"PK\x03\x04|\x1f\x8b|.{257}ustar", re.DOTALL)),
    ("an empty file", re.compile(rb"\Z")),
)


def other_kind(file: SideFile) -> str:
    """What a file is that is called as a SentencePiece model and is none; empty where it may be one."""
    head = bytes(read_at(file.path, file.at, min(file.nbytes, HEAD)))
    return next((kind for kind, begins in KINDS if begins.match(head)), "")


def refuse_other_kind(path: str) -> None:
    """Raises `Fault` for a file that is given as a SentencePiece model, and is of another kind."""
    try:
        kind = other_kind(SideFile(MODEL, path, 0, os.path.getsize(path)))
    except OSError as problem:
        raise Fault("unreadable-file", f"{path}: {problem.strerror}") from None
    if kind:
        raise Fault("bad-model", f"{path} is not a SentencePiece model but {kind}", help="name a tokenizer's .model file, or a folder of HuggingFace's")


def with_tokenizer(text: str, there: Iterable[SideFile], hub: str = "") -> tuple[str, tuple[str, ...]]:
    """The YAML text, where it asks for a SentencePiece model and names none, with HuggingFace's tokenizer that is `there`
    (files beside the source). `hub` is the repository that they are of, if they are of one."""
    import yaml

    config = yaml.safe_load(text)
    tokenizer = config.get("tokenizer") if isinstance(config, Mapping) else None
    if not isinstance(tokenizer, Mapping) or tokenizer.get("library") != "sentencepiece" or tokenizer.get("model"):
        return text, ()
    files = {each.name: each for each in there}
    mark = next((files[name] for name in MARKS if name in files and Path(files[name].path).name == name), None)
    if mark is not None:
        place = hub or str(Path(mark.path).resolve().parent)
        changed = {**config, "tokenizer": {**tokenizer, "library": "huggingface", "type": place, "model": None, "use_fast": True}}
        note = f"{NOTE}that of HuggingFace at {place}, where NeMo looks for it when it loads the result"
        return str(yaml.safe_dump(changed, sort_keys=False, allow_unicode=True)), (note,)
    kind = other_kind(files[MODEL]) if MODEL in files else ""
    why = f"{files[MODEL].path} is no SentencePiece model but {kind}, which NeMo cannot load" if kind else "there is none beside the source"
    return text, (f"{NOTE}not said, as {why}: set `tokenizer` in model_config.yaml before NeMo loads the result",)
