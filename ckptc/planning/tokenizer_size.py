"""A tokenizer's files in, the number of tokens that it has out.

SentencePiece counts its pieces. HuggingFace's tokenizers count the words of `tokenizer.json`, or of `vocab.json` with its
`merges.txt`, and those that were added, each once (`len(tokenizer)`, which is what NeMo's AutoTokenizer.vocab_size is).
A tiktoken file has a token and its rank on each line; the special tokens above them stand in `tokenizer_config.json`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..runtime.files.read_window import read_at
from ..runtime.files.window import SideFile
from ..runtime.formats.nemo.archive import plain_name
from ..runtime.tokenizer.sentencepiece_model import count_pieces

LARGEST = 256 << 20  # bytes of a file that is read


def count_tokens(files: Sequence[SideFile]) -> tuple[int, str] | None:
    """How many tokens the tokenizer among `files` has, and the name of the file that tells. None where none of them is a
    tokenizer's, or several could be."""
    named = {plain_name(each.name).rsplit("/", 1)[-1]: each for each in files if each.nbytes <= LARGEST}
    if "tokenizer.json" in named and (whole := _tokenizer_json(_json(named["tokenizer.json"]))) is not None:
        return whole, "tokenizer.json"
    added = _added(_json(named.get("added_tokens.json")), _json(named.get("tokenizer_config.json")))
    models = [name for name in named if name.endswith((".model", ".tiktoken"))]
    if len(models) == 1:
        count = _model(named[models[0]], added)
        return None if count is None else (count, models[0])
    words = _json(named.get("vocab.json"))
    if not models and isinstance(words, Mapping) and "merges.txt" in named:
        return len({*words} | {*added}), "vocab.json"
    return None


def _model(file: SideFile, added: Mapping[str, int | None]) -> int | None:
    data = bytes(read_at(file.path, file.at, file.nbytes))
    ranks = _tiktoken(data)
    if ranks is None:
        return count_pieces(data)
    numbers = [number for number in added.values() if number is not None]
    return max([ranks, *(number + 1 for number in numbers)]) if numbers else None  # without them its own are not known


def _json(file: SideFile | None) -> Any:
    if file is None:
        return None
    try:
        return json.loads(bytes(read_at(file.path, file.at, file.nbytes)))
    except (ValueError, RecursionError):
        return None


def _tokenizer_json(content: Any) -> int | None:
    model = content.get("model") if isinstance(content, Mapping) else None
    words = model.get("vocab") if isinstance(model, Mapping) else None
    if isinstance(words, Mapping):
        known = set(words)
    elif isinstance(words, list) and all(isinstance(each, list) and each and isinstance(each[0], str) for each in words):
        known = {each[0] for each in words}  # Unigram: pairs of a token and its score
    else:
        return None
    return len(known | set(_contents(content.get("added_tokens"))))


def _contents(added: Any) -> Iterable[str]:
    for each in added if isinstance(added, list) else ():
        if isinstance(each, Mapping) and isinstance(each.get("content"), str):
            yield each["content"]


def _added(own: Any, settings: Any) -> dict[str, int | None]:
    """Tokens beside the vocabulary, by their text: those of added_tokens.json and of tokenizer_config.json."""
    found: dict[str, int | None] = {text: n if type(n) is int else None for text, n in own.items()} if isinstance(own, Mapping) else {}
    decoder = settings.get("added_tokens_decoder") if isinstance(settings, Mapping) else None
    for number, each in decoder.items() if isinstance(decoder, Mapping) else ():
        if isinstance(each, Mapping) and isinstance(each.get("content"), str):
            found[each["content"]] = int(number) if str(number).isdecimal() else None
    return found


def _tiktoken(data: bytes) -> int | None:
    """One more than the highest rank, of lines that are a token in base64 and its rank."""
    highest = -1
    for line in data.splitlines():
        word, _, rank = line.partition(b" ")
        if not rank.isdigit():
            return None
        try:
            base64.b64decode(word, validate=True)
        except (binascii.Error, ValueError):
            return None
        highest = max(highest, int(rank))
    return highest + 1 if highest >= 0 else None
