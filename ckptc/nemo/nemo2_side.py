"""What NeMo 2 has beside its weights: a source's config and tokenizer in, the files of the `context/` folder out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from math import prod
from pathlib import Path
from typing import Any

from ..compiler.link.flat import Family, FlatLayout
from ..compiler.settle.resolve import Side
from ..compiler.settle.write_config import config_text
from ..configs.config_file import parse_config, read_config
from ..library import mapping_files as library
from ..runtime.checkpoint.checkpoint import Checkpoint
from ..runtime.fault import Fault
from ..runtime.files.window import SideFile
from ..runtime.formats.nemo.archive import CONFIG, plain_name, unwrap
from .nemo2_context import (
    FOLDER,
    HubTokenizer,
    HuggingFaceFolder,
    SentencePieceFile,
    Tokenizer,
    context_files,
    tokenizer_of,
)
from .nemo2_models import FAMILIES
from .wanted import HF_FOLDER, Wanted

NEMO_1 = "nemo-dist"
TOKENIZERS = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template*", "*.model")
HF_MARKS = ("tokenizer.json", "tokenizer_config.json")
# What HuggingFace's configs say and the sizes and settings of a model do not, in NeMo 1's words.
FROM_HF = {"partial_rotary_factor": "rotary_percentage"}


@dataclass(frozen=True)
class Context:
    """The texts of the context folder, the files that are copied into it, and what there is to say."""

    texts: tuple[tuple[str, str], ...] = ()
    carried: tuple[SideFile, ...] = ()
    notes: tuple[str, ...] = ()


def copied_context(checkpoint: Checkpoint, wanted: Wanted, dtype: str | None) -> Context:
    """The context folder of a source that is a NeMo 2 checkpoint itself, as it is."""
    if wanted != Wanted():
        raise Fault(
            "has-context", f"{checkpoint.path} is a NeMo 2 checkpoint, whose context folder is copied as it is",
            help="leave --model-id and --tokenizer out",
        )  # fmt: skip
    root = Path(checkpoint.path) / checkpoint.tag
    files = sorted(path for path in (root / FOLDER).rglob("*") if path.is_file())
    if not files:
        return Context(notes=(f"{checkpoint.path} has no context folder, so the result has none",))
    carried = tuple(SideFile(path.relative_to(root).as_posix(), str(path), 0, path.stat().st_size) for path in files)
    return Context(carried=carried, notes=(f"the context folder still says the dtype of {checkpoint.path}",) if dtype else ())


def made_context(
    target: Side, family: Family, keys_layout: FlatLayout | None, config: Path | None, wanted: Wanted, dtype: str, there: Iterable[SideFile]
) -> Context:
    """The context folder of a model of this family. `there` are the files beside the source, `dtype` that of the weights."""
    name = wanted.model_id or family.name
    if wanted.model_id is None and name not in FAMILIES:
        return Context(notes=(f"no context folder is written: NeMo 2's classes of {name} models are not known here",))
    said, of_nemo = _settings(target, family, keys_layout, config)
    tokenizer, files, notes = _tokenizer(wanted, said, of_nemo, list(there))
    texts = context_files(name, said, tokenizer, dtype)
    carried = tuple(replace(each, name=f"{FOLDER}/{each.name}") for each in files)
    return Context(tuple((f"{FOLDER}/{file}", text.decode()) for file, text in texts), carried, notes)


def dtype_of(checkpoint: Checkpoint) -> str:
    """The dtype of most of the elements."""
    count: Counter[str] = Counter()
    for tensor in checkpoint:
        count[tensor.dtype] += prod(tensor.shape)
    return count.most_common(1)[0][0]


def _settings(target: Side, family: Family, keys_layout: FlatLayout | None, config: Path | None) -> tuple[Mapping[str, Any], bool]:
    """The model's settings in NeMo 1's words, and whether they are NeMo 1's own: else they follow from the sizes."""
    block = keys_layout.config if keys_layout is not None else None
    own = read_config(config) if config is not None else {}
    if block is not None and Path(block.file).name == CONFIG and config is not None:
        return unwrap(own), True
    block = family.layout(NEMO_1).config
    assert block is not None
    made = parse_config(config_text(block, target, library.read_template(block)), Path(CONFIG))
    return made | {key: own[name] for name, key in FROM_HF.items() if own.get(name) is not None}, False


def _tokenizer(
    wanted: Wanted, said: Mapping[str, Any], of_nemo: bool, there: list[SideFile]
) -> tuple[Tokenizer | None, tuple[SideFile, ...], tuple[str, ...]]:
    """The tokenizer, its files by their names in the context folder, and notes."""
    if wanted.tokenizer is not None:
        return *_given(wanted.tokenizer), ()
    found = tokenizer_of(said) if of_nemo else None
    match found:
        case SentencePieceFile(name, legacy):
            file = next((each for each in there if each.name == name), None) or next((each for each in there if plain_name(each.name) == name), None)
            if file is None:
                return None, (), (f"the config's tokenizer `{name}` is not beside it, so the result has none: name it with --tokenizer",)
            plain = plain_name(file.name)
            return SentencePieceFile(plain, legacy), (replace(file, name=plain),), ()
        case HubTokenizer(name):
            if any(each.name in HF_MARKS for each in there):
                return _of_huggingface(there)
            return found, (), (f"NeMo 2 fetches the tokenizer {name} from the hub when it loads the result",)
    # Where the config names none, what is beside it is meant.
    return _of_huggingface(there)


def _given(path: str) -> tuple[Tokenizer, tuple[SideFile, ...]]:
    place = Path(path)
    if place.is_dir():
        files = [_file(each) for each in sorted(place.iterdir()) if each.is_file()]
        tokenizer, chosen, _ = _of_huggingface(files)
        if tokenizer is not None:
            return tokenizer, chosen
        raise Fault("no-file", f"the folder {path} holds no tokenizer", help="name a SentencePiece model, or a folder with HuggingFace's tokenizer files")
    if not place.is_file():
        raise Fault("no-file", f"there is no file `{path}`", help="name the tokenizer's file")
    return SentencePieceFile(place.name), (_file(place),)


def _of_huggingface(there: list[SideFile]) -> tuple[Tokenizer | None, tuple[SideFile, ...], tuple[str, ...]]:
    """HuggingFace's tokenizer files among others, or a SentencePiece model that stands alone."""
    files = [each for each in there if any(fnmatch(each.name, glob) for glob in TOKENIZERS)]
    if any(each.name in HF_MARKS for each in files):
        return HuggingFaceFolder(HF_FOLDER), tuple(replace(each, name=f"{HF_FOLDER}/{each.name}") for each in files), ()
    model = next((each for each in files if each.name.endswith(".model")), None)
    if model is not None:
        return SentencePieceFile(model.name), (model,), ()
    return None, (), ("there is no tokenizer beside the source, so the result has none: name it with --tokenizer",)


def _file(path: Path) -> SideFile:
    return SideFile(path.name, str(path.resolve()), 0, path.stat().st_size)
