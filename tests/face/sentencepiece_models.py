"""Small SentencePiece models, made by its own trainer; models as bytes and as fields."""

from __future__ import annotations

import io
from pathlib import Path

import sentencepiece

from ckptc.runtime.tokenizer.protobuf import walk, write_varint

LINES = ["the quick brown fox jumps over the lazy dog", "many tensors change formats but bytes stay the same"] * 3
KINDS = ("bpe", "unigram", "char", "word")
ADD = ("tokenizer", "add-special-tokens")
SCRIPT = ("compat", "add_special_tokens_to_sentencepiece")


def trained(kind: str, size: int) -> bytes:
    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LINES), model_writer=out, vocab_size=size, model_type=kind, minloglevel=2,
        hard_vocab_limit=False, normalization_rule_name="identity",
    )  # fmt: skip
    return out.getvalue()


def load(data: bytes | str):
    data = Path(data).read_bytes() if isinstance(data, str) else data
    return sentencepiece.SentencePieceProcessor(model_proto=data)


def parts(data: bytes) -> list[tuple[int, bytes]]:
    """Each top-level field: its number, its bytes."""
    return [(field.number, data[field.start : field.end]) for field in walk(data)]


def sized(number: int, body: bytes) -> bytes:
    return write_varint(number << 3 | 2) + write_varint(len(body)) + body
