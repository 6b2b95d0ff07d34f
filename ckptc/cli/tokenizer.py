"""`ckptc tokenizer`: what is done to a tokenizer beside a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..usage import BadValue
from .options import JSON
from .parse import Argument, Command, Option, path

NO_TOKENS = "it needs one token or more; write --tokens=-x for a token -x"


def add_special_tokens(said: dict[str, Any]) -> None:
    from ..runtime.tokenizer.sentencepiece_model import add_special_tokens, shown

    source, target, userdefined = said["input_file"], said["output_file"], said["userdefined"]
    numbered = add_special_tokens(source, target, said["tokens"], userdefined=userdefined, overwrite=said["overwrite"])
    size = numbered[-1][1] + 1
    if said["json"]:
        kind = "user-defined" if userdefined else "control"
        added = [{"token": token, "id": number, "kind": kind} for token, number in numbered]
        print(json.dumps({"source": str(source), "destination": str(target), "tokens": added, "vocab_size": size}, indent=2))
        return
    for token, number in numbered:
        print(f"{shown(token)}  {number}")
    print(f"New tokenizer vocab size: {size}")


def repeat(arguments: Sequence[str]) -> list[str]:
    """`--tokens a b`, as the scripts' own parser takes it, as `--tokens=a --tokens=b`."""
    out: list[str] = []
    taking = False
    for word, following in zip(arguments, [*arguments[1:], None], strict=True):
        if _is_option(word):
            taking = word == "--tokens"
            if taking and (following is None or _is_option(following)):
                raise BadValue("--tokens", NO_TOKENS)
            out += [] if taking else [word]
        else:
            out.append(f"--tokens={word}" if taking else word)
    return out


def _is_option(word: str) -> bool:
    return word.startswith("-") and word != "-"


ADD_SPECIAL_TOKENS = Command(
    "Add tokens to a SentencePiece model.",
    (),
    (
        (
            "Options",
            (
                Option(("--input-file",), "A SentencePiece model, tokenizer.model.", "IN", path, required=True),
                Option(("--output-file",), "Where to write.", "OUT", path, required=True),
                Option(("--tokens",), "What to add, in the order of ids.", "TOKEN [TOKEN...]", str, many=True, required=True),
                Option(
                    ("--userdefined", "--is-userdefined"),
                    "Tokens that are found in text and kept whole. Without it they only have ids (control tokens).",
                    default=False,
                ),
                Option(("--overwrite",), "Replace OUT if it exists.", default=False),
                JSON,
            ),
        ),
    ),
    add_special_tokens,
    words=repeat,
)


def to_hf(said: dict[str, Any]) -> None:
    from ..nemo.hf_tokenizer import write_tokenizer

    files = write_tokenizer(said["src"], str(said["dst"]), overwrite=said["overwrite"])
    record = {"source": said["src"], "destination": str(said["dst"]), "files": list(files)}
    print(json.dumps(record, indent=2) if said["json"] else f"{said['dst']}: {', '.join(files)}")


TO_HF = Command(
    "Write a SentencePiece model as HuggingFace's tokenizer.",
    (Argument("SRC", "A .nemo archive, a SentencePiece model, or a folder with one."), Argument("DST", "The folder to write to.", path)),
    (("Options", (Option(("--overwrite",), "Replace tokenizer.model in DST if it is there.", default=False), JSON)),),
    to_hf,
)
