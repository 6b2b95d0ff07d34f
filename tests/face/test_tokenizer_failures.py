"""What `ckptc tokenizer add-special-tokens` refuses, and that it then leaves everything as it was."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ckptc as face
from ckptc.runtime.engine import destination
from ckptc.runtime.fault import Fault
from ckptc.runtime.tokenizer.protobuf import walk
from tests.face.sentencepiece_models import ADD, SCRIPT, load, parts, sized


@pytest.mark.parametrize(
    ("tokens", "userdefined", "sentence"),
    [
        (["<z>", "<s>"], False, "`<s>` is already a piece of in.model: id 1, control"),
        (["</s>"], True, "`</s>` is already a piece of in.model: id 2, control"),
        (["<unk>"], True, "`<unk>` is already a piece of in.model: id 0, unknown"),
        (["▁the"], True, "`▁the` is already a piece of in.model: id "),
        (["<z>", "<y>", "<z>"], True, "`<z>` is given twice"),
        (["<z>", ""], True, "token 2 of 2 is empty"),
        (["a\0b"], True, "`a\\x00b` has a null character, which no piece may have"),
        (["<z>\udcff"], True, "`<z>\\udcff` is not text that UTF-8 can encode"),
        (["<a b>"], True, "`<a b>` would never be found in a text by a model such as in.model"),
    ],
)
def test_a_token_that_cannot_be_added_is_refused(tokens, userdefined, sentence, bpe: bytes, ckptc) -> None:
    done = ckptc(
        *ADD,
        "--input-file",
        "in.model",
        "--output-file",
        "out.model",
        *["--userdefined"] * userdefined,
        "--tokens",
        *tokens,
    )
    assert (done.code, done.out) == (1, "")
    assert sentence in done.err.splitlines()[0]
    assert os.listdir() == ["in.model"]


def test_all_tokens_that_are_there_are_named(bpe: bytes) -> None:
    with pytest.raises(Fault) as error:
        face.add_special_tokens("in.model", "out.model", ["<s>", "<new>", "</s>"])
    assert error.value.notes == ("so is `</s>`: id 2, control",)


def test_pieces_count_whatever_their_kind_and_score(bpe: bytes) -> None:
    size = load(bpe).get_piece_size()
    fields = parts(bpe)
    added = [
        sized(1, sized(1, text) + b"\x15\0\0\x80\xbf\x18" + bytes([kind]))
        for text, kind in ((b"<gone>", 5), (b"plain", 1))
    ]
    Path("more.model").write_bytes(
        b"".join(
            [
                *(body for number, body in fields if number == 1),
                *added,
                *(body for number, body in fields if number != 1),
            ]
        )
    )
    for token, name in (("<gone>", f"id {size}, unused"), ("plain", f"id {size + 1}, normal")):
        with pytest.raises(Fault, match=name):
            face.add_special_tokens("more.model", "out.model", [token], True)


def test_words_that_a_model_takes_whole_hide_a_user_defined_token(models: dict[str, bytes], tmp_path: Path) -> None:
    """A model of words finds only what begins a word; the script writes a token that no text ever has."""
    (tmp_path / "in.model").write_bytes(models["word"])
    with pytest.raises(Fault) as error:
        face.add_special_tokens(tmp_path / "in.model", tmp_path / "out.model", ["<x>"], True)
    assert error.value.code == "unreachable-token"
    assert error.value.help == "leave --userdefined out: a control token only has an id"
    size = load(models["word"]).get_piece_size()
    assert face.add_special_tokens(tmp_path / "in.model", tmp_path / "out.model", ["<x>"]) == [("<x>", size)]


def test_a_model_that_is_cut_off_anywhere_is_refused(bpe: bytes) -> None:
    """Between two fields too, where SentencePiece itself would load what is left."""
    field_ends = [field.end for field in walk(bpe)][:-1]
    for size in {0, 1, 2, *range(3, len(bpe), 1 + len(bpe) // 40), *field_ends, len(bpe) - 1}:
        Path("cut.model").write_bytes(bpe[:size])
        with pytest.raises(Fault) as error:
            face.add_special_tokens("cut.model", "out.model", ["<x>"])
        assert error.value.code == "not-a-model"
        assert error.value.title == "cut.model is not a SentencePiece model, or not a whole one"
        assert not Path("out.model").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello, this is text\n",
        b'{"version": "1.0", "model": {}}',
        b"PK\x03\x04" + bytes(60),
        sized(1, b"a"),
        sized(2, b""),
    ],
)
def test_what_is_no_model_is_refused(data: bytes, bpe: bytes, ckptc) -> None:
    Path("text.model").write_bytes(data)
    done = ckptc(*ADD, "--input-file", "text.model", "--output-file", "out.model", "--tokens", "<x>")
    assert done.code == 1
    assert done.err.startswith(
        "error[not-a-model]: text.model is not a SentencePiece model, or not a whole one\n  = note: "
    )
    assert not Path("out.model").exists()


def test_a_model_that_sentencepiece_refuses_is_refused_with_its_words(bpe: bytes) -> None:
    Path("bad.model").write_bytes(b"".join(body for _, body in parts(bpe)[1:]))  # without its unknown piece
    with pytest.raises(Fault) as error:
        face.add_special_tokens("bad.model", "out.model", ["<x>"])
    assert error.value.code == "not-a-model"
    assert error.value.notes == ("SentencePiece says: INTERNAL: unk is not defined.",)


@pytest.mark.parametrize(
    ("source", "out", "start"),
    [
        ("none.model", "out.model", "error[unreadable-model]: none.model: No such file or directory\n"),
        (".", "out.model", "error[unreadable-model]: .: Is a directory\n"),
        (
            "in.model",
            "in.model",
            "error[source-in-destination]: in.model is the model that is read\n  = help: write another file\n",
        ),
        ("in.model", "link.model", "error[source-in-destination]: link.model is the model that is read\n"),
        ("in.model", "folder", "error[destination-exists]: folder is a folder\n"),
        ("in.model", "in.model/out", "error[write-failed]: in.model/out: "),
    ],
)
def test_places_that_will_not_do_are_refused(source: str, out: str, start: str, bpe: bytes, ckptc) -> None:
    Path("link.model").symlink_to("in.model")
    Path("folder").mkdir()
    for how in (ADD, SCRIPT):
        done = ckptc(
            *how, "--input_file", source, "--output_file", out, "--tokens", "<x>", *["--overwrite"] * (how == ADD)
        )
        assert done.code == 1
        assert done.err.startswith(start)
    assert Path("in.model").read_bytes() == bpe
    assert sorted(os.listdir()) == ["folder", "in.model", "link.model"]


def test_a_file_that_is_there_is_replaced_only_when_asked(bpe: bytes, ckptc) -> None:
    Path("out.model").write_text("mine")
    how = ("--input_file", "in.model", "--output_file", "out.model", "--tokens", "<x>")
    done = ckptc(*ADD, *how)
    assert (done.code, done.err) == (
        1,
        "error[destination-exists]: out.model exists\n  = help: use --overwrite, or another place\n",
    )
    assert Path("out.model").read_text() == "mine"
    assert ckptc(*ADD, *how, "--overwrite").code == 0
    assert load("out.model").get_piece_size() == load(bpe).get_piece_size() + 1
    Path("out.model").write_text("mine")
    done = ckptc(*SCRIPT, *how)
    note, *logged = done.err.splitlines()
    assert (done.code, note) == (0, "note: out.model exists; the script replaces it, and so does this")
    assert all(line.startswith("INFO: ") for line in logged)  # the script's own lines
    assert load("out.model").get_piece_size() == load(bpe).get_piece_size() + 1


def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(
    bpe: bytes, monkeypatch: pytest.MonkeyPatch, ckptc
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    Path("out.model").write_text("mine")
    how = ("--input-file", "in.model", "--output-file", "out.model", "--tokens", "<x>", "--overwrite")
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(destination.os, name, full)
            done = ckptc(*ADD, *how)
        assert (done.code, done.err) == (1, "error[write-failed]: out.model: No space left on device\n")
        assert Path("out.model").read_text() == "mine"
        assert sorted(os.listdir()) == ["in.model", "out.model"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "ckptc: missing option '--tokens'"),
        (
            ["--tokens"],
            "ckptc: invalid value for --tokens: it needs one token or more; write --tokens=-x for a token -x",
        ),
        (["--tokens", "--userdefined"], "ckptc: invalid value for --tokens: it needs one token or more; write"),
        (["<x>", "--tokens", "<y>"], "ckptc: got unexpected extra argument(s) (<x>)"),
    ],
)
def test_tokens_that_are_not_given_are_a_fault_of_usage(arguments: list[str], sentence: str, bpe: bytes, ckptc) -> None:
    done = ckptc(*ADD, "--input-file", "in.model", "--output-file", "out.model", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(sentence)
    assert done.err.count("\n") == 1
    for tokens in ([], iter(()), "<x>"):
        with pytest.raises(Fault, match="no-tokens"):
            face.add_special_tokens("in.model", "out.model", tokens)


def test_a_token_that_is_no_text_is_refused_in_a_process_of_its_own(bpe: bytes) -> None:
    for how in (ADD, SCRIPT):
        command = [
            sys.executable,
            "-m",
            "ckptc",
            *how,
            "--input_file",
            "in.model",
            "--output_file",
            "out.model",
            "--tokens",
            b"\xff",
        ]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "error[bad-token]: `\\udcff` is not text that UTF-8 can encode\n"
