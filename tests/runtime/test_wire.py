"""The fields of a protocol buffer: any sequence of them is found, byte for byte; what is none is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptc.runtime.tokenizer import protobuf as wire
from ckptc.runtime.tokenizer.sentencepiece_model import insert_pieces

NUMBERS = st.one_of(st.integers(1, 16), st.integers(1, (1 << 29) - 1))
PIECE = (1, wire.SIZED)


@st.composite
def varints(draw: st.DrawFn, values: st.SearchStrategy[int], most: int) -> tuple[int, bytes]:
    """A number as it may stand in a file: not always in as few bytes as would do."""
    value = draw(values)
    short = wire.write_varint(value)
    spare = draw(st.integers(0, most - len(short)))
    if not spare:
        return value, short
    return value, bytes((*short[:-1], short[-1] | 128, *[128] * (spare - 1), 0))


@st.composite
def fields(draw: st.DrawFn, depth: int = 2) -> tuple[int, int, bytes, bytes]:
    """(number, wire type, what stands before the body, the body)."""
    number = draw(NUMBERS)
    kinds = [wire.VARINT, wire.FIXED64, wire.SIZED, wire.FIXED32] + [wire.GROUP] * (depth > 0)
    kind = draw(st.sampled_from(kinds))
    _, tag = draw(varints(st.just(number << 3 | kind), 5))
    if kind == wire.VARINT:
        return number, kind, tag, draw(varints(st.integers(0, (1 << 64) - 1), 10))[1]
    if kind == wire.SIZED:
        content = draw(st.binary(max_size=200))
        return number, kind, tag + draw(varints(st.just(len(content)), 5))[1], content
    if kind == wire.GROUP:
        inner = draw(st.lists(fields(depth - 1), max_size=3))
        return number, kind, tag, b"".join(f[2] + f[3] for f in inner) + wire.write_varint(number << 3 | wire.GROUP_END)
    size = wire.FIXED[kind]
    return number, kind, tag, draw(st.binary(min_size=size, max_size=size))


@given(st.lists(fields(), max_size=12))
def test_fields_are_found_and_survive_byte_for_byte(made: list[tuple[int, int, bytes, bytes]]) -> None:
    data = b"".join(f[2] + f[3] for f in made)
    found = list(wire.walk(data))
    assert [(f.number, f.wire_type) for f in found] == [f[:2] for f in made]
    assert [(data[f.start : f.body], data[f.body : f.end]) for f in found] == [f[2:] for f in made]
    assert [f.start for f in found] + [len(data)] == [0, *(f.end for f in found)]


@given(st.lists(fields(), max_size=6), st.lists(fields(), max_size=6), st.lists(st.text(min_size=1), max_size=3))
def test_pieces_that_are_inserted_leave_all_other_fields_as_they_are(before, after, tokens) -> None:
    first, last = (b"".join(f[2] + f[3] for f in made) for made in (before, after))
    data = insert_pieces(first + last, len(first), tokens, 4)
    assert data.startswith(first)
    assert data.endswith(last)
    found = [(f.number, f.wire_type, data[f.start : f.body], data[f.body : f.end]) for f in wire.walk(data)]
    new = found[len(before) : len(found) - len(after)]
    assert found[: len(before)] + found[len(found) - len(after) :] == before + after
    assert [f[:2] for f in new] == [PIECE] * len(tokens)
    for (_, _, _, body), token in zip(new, tokens, strict=True):
        text, score, kind = wire.walk(body)
        assert body[text.body : text.end].decode() == token
        assert body[score.start :] == b"\x15\0\0\0\0\x18\x04"
        assert kind.number == 3


@given(st.lists(fields(), min_size=1, max_size=4), st.data())
def test_a_message_that_is_cut_off_within_a_field_is_refused(
    made: list[tuple[int, int, bytes, bytes]], data: st.DataObject
) -> None:
    whole = b"".join(f[2] + f[3] for f in made)
    last = len(made[-1][2] + made[-1][3])
    cut = data.draw(st.integers(len(whole) - last + 1, len(whole) - 1))
    with pytest.raises(ValueError, match=r"cut off|after the end"):
        list(wire.walk(whole[:cut]))


@given(st.binary(max_size=60))
def test_any_bytes_are_fields_from_end_to_end_or_refused(data: bytes) -> None:
    try:
        found = list(wire.walk(data))
    except ValueError:
        return
    assert b"".join(data[f.start : f.end] for f in found) == data


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"\x00\x00", "what stands at byte 0 is no field"),
        (b"\x0f", "what stands at byte 0 is no field"),
        (b"\x0a\x02a", "field 1 at byte 0 ends at byte 4, after the end, 3"),
        (b"\x0a\x01a\x0c", "a group ends at byte 3 that never began"),
        (b"\x0b\x14", "the group that ends at byte 1 is not the one that began"),
        (b"\x0b", "a number is cut off at byte 1"),
        (b"\xff" * 6, "a number before byte 5 is too long"),
    ],
)
def test_what_is_no_field_is_said_where_it_stands(data: bytes, sentence: str) -> None:
    with pytest.raises(ValueError) as error:
        list(wire.walk(data))
    assert str(error.value) == sentence
