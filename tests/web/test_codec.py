"""The JSON value of a message, and a message's JSON value: encoding, decoding, previews, and what is not JSON."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web.codec import decode_message, encode_message, parse_json, preview, printable
from web.errors import ApiError

MIB = 1 << 20
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
def test_any_json_value_is_its_compact_text(value: Any) -> None:
    text = json.dumps([value], ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps([value])  # lone surrogates can only be written as escapes
    try:
        stored = encode_message(parse_json(text.encode()), MIB).decode()
    except ApiError as error:
        assert error.error in ("bad_utf8", "too_deep", "bad_json")
        return
    assert json.loads(stored) == [value] or value != value
    assert stored == json.dumps([value], ensure_ascii=False, separators=(",", ":")) or "\\u" in stored


@given(st.binary(min_size=1, max_size=200))
def test_every_message_comes_back_from_its_json_value(message: bytes) -> None:
    assert encode_message(decode_message(message), MIB) == message


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_refused(data: bytes) -> None:
    try:
        parse_json(data)
    except ApiError as error:
        assert (error.status, error.error) in [(400, "bad_json"), (400, "bad_utf8"), (400, "duplicate_key")]


@given(st.binary(min_size=1, max_size=60), st.integers(1, 20))
def test_a_preview_is_the_beginning_of_its_message(message: bytes, characters: int) -> None:
    head = message[: 4 * characters]
    found = preview(head, len(message), characters)
    assert found["bytes"] == len(message)
    text = found["preview"]
    if isinstance(text, str):
        assert message.startswith(text.encode()) and len(text) <= characters
    else:
        assert message.startswith(base64.b64decode(text["base64"]))
    if isinstance(decode_message(message), str):
        assert text == message.decode()[:characters]


@pytest.mark.parametrize("text", ["a\n\r\x00b", "žluťoučký", "\ud800", "x" * 1000])
def test_any_text_is_printable_in_a_sentence(text: str) -> None:
    shown = printable(text)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= 62
