"""NeMo's `add_special_tokens_to_sentencepiece.py`: its arguments in, native arguments out."""

from __future__ import annotations

import os
from collections.abc import Sequence

from ..runtime.tokenizer.sentencepiece_model import check_tokens, count_pieces, shown
from .work import ScriptParser, Work


def translate(arguments: Sequence[str]) -> Work:
    parser = ScriptParser(
        prog="ckptc compat add_special_tokens_to_sentencepiece", description="Special tokens into a tokenizer.model."
    )
    add = parser.add_argument
    add("--input_file", required=True, help="the SentencePiece model")
    add("--output_file", required=True, help="where to write; what is there is replaced")
    add("--tokens", nargs="+", required=True, help="what to add")
    add("--is_userdefined", action="store_true", help="found in text and kept whole; without it, control tokens")
    args = parser.parse_args(list(arguments))
    check_tokens(args.tokens)  # they are about to be printed
    native = ["tokenizer", "add-special-tokens", "--input-file", args.input_file, "--output-file", args.output_file]
    notes = []
    if os.path.isfile(args.output_file) and os.path.realpath(args.input_file) != os.path.realpath(args.output_file):
        notes.append(f"{args.output_file} exists; the script replaces it, and so does this")
    if args.is_userdefined:
        native.append("--userdefined")
    if any(token.startswith("-") for token in args.tokens):
        native += [f"--tokens={token}" for token in args.tokens]
    else:
        native += ["--tokens", *args.tokens]
    return Work((*native, "--overwrite"), tuple(notes), closing=lambda: _closing(args.output_file, args.tokens), logs=True)


def _closing(output: str, tokens: Sequence[str]) -> list[str]:
    """What the script logs of a tokenizer whose last pieces are the tokens (add_special_tokens_to_sentencepiece.py, edit_spt_model)."""
    with open(output, "rb") as file:
        size = count_pieces(file.read()) or 0
    created = [f"INFO: Created token '{shown(token)}' at ID {number}" for number, token in enumerate(tokens, size - len(tokens))]
    return [*created, f"INFO: New tokenizer vocab size: {size}", f"INFO: Created new tokenizer at: {output}"]
