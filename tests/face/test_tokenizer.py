"""`ckptc tokenizer add-special-tokens`: ids, bytes, and what SentencePiece makes of the result."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

import ckptc as face
from tests.face.sentencepiece_models import ADD, KINDS, LINES, SCRIPT, load, parts, sized


@pytest.fixture(params=KINDS[:3])
def model(
    request: pytest.FixtureRequest, models: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> bytes:
    """The bytes of in.model, in the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("in.model").write_bytes(models[request.param])
    return models[request.param]


def test_a_user_defined_token_is_found_in_text_and_a_control_token_is_not(model: bytes) -> None:
    old = load(model)
    size = old.get_piece_size()
    assert face.add_special_tokens("in.model", Path("user.model"), ["<img>", "[a▁b]"], userdefined=True) == [
        ("<img>", size),
        ("[a▁b]", size + 1),
    ]
    assert face.add_special_tokens("in.model", "control.model", ("<img>", "[a b]")) == [
        ("<img>", size),
        ("[a b]", size + 1),
    ]
    user, control = load("user.model"), load("control.model")
    text = "the <img> fox [a b]"
    assert [i for i in user.encode(text) if i >= size] == [size, size + 1]
    assert control.encode(text) == old.encode(text)
    assert [control.piece_to_id(token) for token in ("<img>", "[a b]")] == [size, size + 1]
    assert [control.is_control(i) for i in (size, size + 1)] == [True, True]
    assert user.decode(user.encode(text)) == text
    for line in LINES:
        assert user.encode(line) == control.encode(line) == old.encode(line)


def test_all_that_was_there_stays_byte_for_byte_and_pieces_stand_after_the_last(model: bytes) -> None:
    face.add_special_tokens("in.model", "out.model", ["<x>"], True)
    before, after = parts(model), parts(Path("out.model").read_bytes())
    last = max(place for place, (number, _) in enumerate(before) if number == 1)
    assert after == [*before[: last + 1], (1, b"\x0a\x0c\x0a\x03<x>\x15\0\0\0\0\x18\x04"), *before[last + 1 :]]


def test_fields_in_another_order_and_unknown_ones_survive(model: bytes) -> None:
    """What rewrites the message through a parser would put fields in order."""
    fields = parts(model)
    pieces = [body for number, body in fields if number == 1]
    rest = [body for number, body in fields if number != 1]
    unknown = sized(90, b"kept"), b"\xa0\x06\x81\x00", b"\xbb\x06" + sized(1, b"in a group") + b"\xbc\x06"
    first = b"".join((*rest[:1], unknown[0], *pieces[:7], unknown[1], *rest[1:], *pieces[7:]))
    last = b"".join((*unknown, rest[0]))
    Path("odd.model").write_bytes(first + last)
    size = load(model).get_piece_size()
    assert face.add_special_tokens("odd.model", "out.model", ["<x>", "<y>"], True) == [("<x>", size), ("<y>", size + 1)]
    result = Path("out.model").read_bytes()
    assert result.startswith(first)
    assert result.endswith(last)
    assert load(result).encode("the <y>")[-1] == size + 1
    assert load(result).encode(LINES) == load(model).encode(LINES)


def test_ids_go_on_from_call_to_call(bpe: bytes) -> None:
    size = load(bpe).get_piece_size()
    face.add_special_tokens("in.model", "a.model", ["<a>"], True)
    assert face.add_special_tokens("a.model", "b.model", ["<b>"]) == [("<b>", size + 1)]
    face.add_special_tokens("in.model", "ab.model", ["<a>", "<b>"], True)
    assert len(Path("ab.model").read_bytes()) == len(Path("b.model").read_bytes())


def test_a_long_token_has_a_size_of_two_bytes(bpe: bytes) -> None:
    token = f"<{'é' * 200}>"
    assert face.add_special_tokens("in.model", "out.model", [token], True) == [(token, load(bpe).get_piece_size())]


def test_what_is_printed(bpe: bytes, ckptc) -> None:
    size = load(bpe).get_piece_size()
    done = ckptc(
        *ADD, "--input_file", "in.model", "--output_file", "sub/out.model", "--is_userdefined", "--tokens", "<a>", "\n"
    )
    assert (done.code, done.err) == (0, "")
    assert done.out == f"<a>  {size}\n\\n  {size + 1}\nNew tokenizer vocab size: {size + 2}\n"
    done = ckptc(
        *ADD, "--tokens", "<a>", "-", "--json", "--input-file", "in.model", "--tokens=-b", "--output-file", "b.model"
    )
    assert json.loads(done.out) == {
        "source": "in.model",
        "destination": "b.model",
        "tokens": [{"token": t, "id": size + i, "kind": "control"} for i, t in enumerate(("<a>", "-", "-b"))],
        "vocab_size": size + 3,
    }


def test_the_file_may_be_read_by_whom_the_umask_lets(bpe: bytes) -> None:
    before = os.umask(0o027)
    try:
        face.add_special_tokens("in.model", "out.model", ["<x>"])
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat("out.model").st_mode) == 0o640


def test_the_script_takes_tokens_as_its_own_parser_does(bpe: bytes, ckptc) -> None:
    size = load(bpe).get_piece_size()
    script = (*SCRIPT, "--input_file", "in.model", "--output_file", "out.model", "--tokens")
    done = ckptc(*script, "-5", "-a b", "<c>")
    assert done.code == 0, done.err
    assert done.out.splitlines()[1:] == [
        f"-5  {size}", f"-a b  {size + 1}", f"<c>  {size + 2}", f"New tokenizer vocab size: {size + 3}"
    ]  # fmt: skip
    done = ckptc(*script)
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "ckptc: argument --tokens: expected at least one argument "
        "(see `ckptc compat add_special_tokens_to_sentencepiece --help`)\n"
    )
