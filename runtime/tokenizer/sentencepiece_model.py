"""A SentencePiece model and new tokens in; the same model with their pieces after its last one out, loaded as proof.

A model is a protocol buffer: its field 1, repeated, has the pieces, whose ids are their places; 2 says how it was
trained, 3 how text is normalized. A piece has its text (1), score (2) and type (3). Bytes that are there stay.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

from ..engine.destination import check_file, write_file
from ..fault import Fault
from .protobuf import SIZED, VARINT, Field, read_varint, walk, write_varint

PIECES, TRAINER, NORMALIZER = 1, 2, 3
TEXT, TYPE = 1, 3
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
KINDS = {NORMAL: "normal", 2: "unknown", CONTROL: "control", USER_DEFINED: "user-defined", 5: "unused", 6: "byte"}


def add_special_tokens(
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    tokens: Iterable[str],
    userdefined: bool = False,
    *,
    overwrite: bool = False,
) -> list[tuple[str, int]]:
    """Write the SentencePiece model `input` to `output` with `tokens` added, and return each with its id.

    Ids go on from the model's last. A user-defined token is found in text and kept whole; any other is a control token,
    which has an id and is never found in text. Raises `Fault`, with nothing written.
    """
    source, out = os.fspath(input), os.fspath(output)
    tokens = check_tokens(tokens)
    data = _read(source)
    if os.path.exists(out) and os.path.samefile(source, out):
        raise Fault("source-in-destination", f"{out} is the model that is read", help="write another file")
    check_file(out, overwrite=overwrite)
    pieces = _pieces(data, source)
    _refuse_known(data, pieces, tokens, _load(data, source), source)
    result = insert_pieces(data, pieces[-1].end, tokens, USER_DEFINED if userdefined else CONTROL)
    numbered = [(token, len(pieces) + place) for place, token in enumerate(tokens)]
    _prove(result, numbered, userdefined, source)
    write_file(out, result)
    return numbered


def check_tokens(tokens: Iterable[str]) -> list[str]:
    """The tokens, if each can be the text of a new piece, whatever the model."""
    if isinstance(tokens, str):
        raise Fault("no-tokens", "the tokens to add are one text, not a list", help="give a list of one or more")
    tokens = list(tokens)
    if not tokens:
        raise Fault("no-tokens", "there are no tokens to add", help="give a list of one or more")
    for place, token in enumerate(tokens):
        if not token:
            raise Fault("bad-token", f"token {place + 1} of {len(tokens)} is empty", help="leave it out")
        if "\0" in token:
            raise Fault("bad-token", f"`{shown(token)}` has a null character, which no piece may have")
        try:
            token.encode()
        except UnicodeEncodeError:
            raise Fault("bad-token", f"`{shown(token)}` is not text that UTF-8 can encode") from None
        if token in tokens[:place]:
            raise Fault("repeated-token", f"`{shown(token)}` is given twice", help="give each token once")
    return tokens


def shown(token: str) -> str:
    """The token on one line, of characters that can be printed."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in token)


def insert_pieces(data: bytes, at: int, tokens: Sequence[str], kind: int) -> bytes:
    """The model with a piece of score 0 for each token at byte `at`."""
    added = bytearray()
    for token in tokens:
        text = token.encode()
        piece = b"\x0a" + write_varint(len(text)) + text + b"\x15\0\0\0\0\x18" + write_varint(kind)
        added += b"\x0a" + write_varint(len(piece)) + piece
    return data[:at] + bytes(added) + data[at:]


def count_pieces(data: bytes) -> int | None:
    """How many pieces a model has; None where `data` is not a SentencePiece model."""
    try:
        return int(_load(data, "").vocab_size())
    except Fault:
        return None


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise Fault("unreadable-model", f"{path}: {error.strerror}") from None


def _pieces(data: bytes, path: str) -> list[Field]:
    """The places of the pieces, by id."""
    try:
        fields = list(walk(data))
    except ValueError as error:
        raise _not_a_model(path, str(error)) from None
    pieces = [f for f in fields if f.number == PIECES and f.wire_type == SIZED]
    if not pieces:
        raise _not_a_model(path, "it has no pieces")
    # A file that is cut off between two fields would still load, as a model that cuts text in other ways.
    for number, what in ((TRAINER, "how it was trained"), (NORMALIZER, "how text is normalized")):
        if not any(f.number == number and f.wire_type == SIZED for f in fields):
            raise _not_a_model(path, f"it does not say {what} (field {number}), which every whole model does")
    return pieces


def _load(data: bytes, path: str) -> Any:
    """SentencePiece's own reading of the model."""
    from sentencepiece import SentencePieceProcessor

    try:
        return SentencePieceProcessor(model_proto=data)
    except (RuntimeError, ValueError) as error:
        raise _not_a_model(path, f"SentencePiece says: {_line(error)}") from None


def _refuse_known(data: bytes, pieces: Sequence[Field], tokens: Sequence[str], model: Any, path: str) -> None:
    """Refuses tokens that are pieces, of whatever kind and score: a text has one id."""
    known = []
    for token in tokens:
        number = model.piece_to_id(token)  # that of the unknown piece if there is no such piece
        text, kind = _read_piece(data, pieces[number])
        if text == token.encode():
            known.append((token, number, KINDS.get(kind, "normal")))
    if known:
        token, number, name = known[0]
        raise Fault(
            "known-token", f"`{shown(token)}` is already a piece of {path}: id {number}, {name}",
            notes=tuple(f"so is `{shown(t)}`: id {n}, {k}" for t, n, k in known[1:]),
            help="leave out what is there, or choose another name",
        )  # fmt: skip


def _read_piece(data: bytes, piece: Field) -> tuple[bytes, int]:
    """Text and type. Of what is there twice the last holds, as protocol buffers have it."""
    text, kind = b"", NORMAL
    for field in walk(data, piece.body, piece.end):
        if (field.number, field.wire_type) == (TEXT, SIZED):
            text = data[field.body : field.end]
        elif (field.number, field.wire_type) == (TYPE, VARINT):
            kind = read_varint(data, field.body)[0]
    return text, kind


def _prove(result: bytes, numbered: Sequence[tuple[str, int]], userdefined: bool, path: str) -> None:
    """Loads the result: every token has its id, and text has every user-defined one found in it."""
    from sentencepiece import SentencePieceProcessor

    try:
        model = SentencePieceProcessor(model_proto=result)
    except (RuntimeError, ValueError) as error:
        raise Fault("refused-tokens", f"{path} does not load with these tokens added: {_line(error)}") from None
    for token, number in numbered:
        if model.piece_to_id(token) != number or model.get_piece_size() != numbered[-1][1] + 1:
            raise Fault("refused-tokens", f"SentencePiece does not give `{shown(token)}` the id {number}")
        # At the ends of a text spaces are dropped, and one may be put before it: so in the middle, and twice, too.
        if userdefined and not any(number in model.encode(text) for text in (token, f"x{token}x", token * 2)):
            way = "leave --userdefined out: a control token only has an id"
            raise Fault(
                "unreachable-token",
                f"`{shown(token)}` would never be found in a text by a model such as {path}",
                help="write its spaces as ▁ (U+2581)" if " " in token else way,
            )


def _not_a_model(path: str, why: str) -> Fault:
    title = f"{path} is not a SentencePiece model, or not a whole one"
    return Fault("not-a-model", title, notes=(why,), help="name a tokenizer.model")


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
