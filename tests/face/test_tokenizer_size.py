"""How many tokens a tokenizer has, by its files; and what is said of padding rows that stay."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from ckptc.planning.tokenizer_size import count_tokens
from ckptc.runtime.files.window import SideFile


@pytest.fixture
def beside(tmp_path: Path):
    def files(**contents: object) -> list[SideFile]:
        """Side files of these contents: bytes and text as they are, all else as JSON. `__` in a name is its dot."""
        out = []
        for name, content in contents.items():
            data = content if isinstance(content, bytes) else content.encode() if isinstance(content, str) else json.dumps(content).encode()
            place = tmp_path / name.replace("__", ".")
            place.write_bytes(data)
            out.append(SideFile(place.name, str(place), 0, len(data)))
        return out

    return files


ADDED = [{"id": 2, "content": "c"}, {"id": 3, "content": "<pad>"}]


def test_words_and_added_tokens_are_counted_once(beside) -> None:
    """`len(tokenizer)` is the vocabulary with the tokens that were added, of which some may be in it."""
    whole = {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2}}, "added_tokens": ADDED}
    assert count_tokens(beside(tokenizer__json=whole)) == (4, "tokenizer.json")


def test_pairs_of_unigram_are_words(beside) -> None:
    whole = {"model": {"type": "Unigram", "vocab": [["a", -1.0], ["b", -2.0], ["c", -3.0]]}, "added_tokens": ADDED}
    assert count_tokens(beside(tokenizer__json=whole)) == (4, "tokenizer.json")


def test_a_vocabulary_with_its_merges_is_counted_with_what_was_added(beside) -> None:
    words, settings = {"a": 0, "b": 1, "c": 2}, {"added_tokens_decoder": {"3": {"content": "<pad>"}, "2": {"content": "c"}}}
    assert count_tokens(beside(vocab__json=words, merges__txt="a b")) == (3, "vocab.json")
    assert count_tokens(beside(vocab__json=words, merges__txt="a b", tokenizer_config__json=settings)) == (4, "vocab.json")
    assert count_tokens(beside(vocab__json=words, merges__txt="a b", added_tokens__json={"x": 3, "y": 4})) == (5, "vocab.json")
    assert count_tokens(beside(vocab__json=words)) is None


def test_tiktokens_ranks_end_below_its_special_tokens(beside) -> None:
    ranks = b"\n".join(base64.b64encode(bytes([n])) + b" %d" % n for n in range(7))
    settings = {"added_tokens_decoder": {"9": {"content": "<|end|>"}, "7": {"content": "<|begin|>"}}}
    assert count_tokens(beside(tokenizer__model=ranks, tokenizer_config__json=settings)) == (10, "tokenizer.model")
    assert count_tokens(beside(tokenizer__model=ranks)) is None  # its special tokens are not told


def test_pieces_of_sentencepiece_are_counted(beside, models) -> None:
    assert count_tokens(beside(tokenizer__model=models["bpe"])) == (40, "tokenizer.model")


@pytest.mark.parametrize("broken", [b"{", b"[1]", b'{"model": 3}'])
def test_what_is_no_tokenizer_tells_nothing(broken: bytes, beside) -> None:
    assert count_tokens(beside(tokenizer__json=broken)) is None
    assert count_tokens([]) is None
