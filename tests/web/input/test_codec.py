"""Messages and their JSON values: encoding, decoding, previews, and texts that are not valid JSON."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web.errors import ApiError, quoted
from web.input import raw_json
from web.input.codec import Limits, compact, decode_message, encode_lines, encode_message, encode_messages, preview
from web.input.raw_json import compact_json, read_object

LIMITS = Limits(1 << 20)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@given(st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8))
def test_any_json_value_becomes_its_compact_text(value: Any) -> None:
    text, must_escape = json.dumps([value], ensure_ascii=False), False
    try:
        text.encode()
    except UnicodeEncodeError:  # surrogates can only be written as escapes
        text, must_escape = json.dumps([value]), True
    try:
        stored = encode_message(compact_json(text.encode()), LIMITS).decode()
    except ApiError as error:
        assert error.error in ("bad_utf8", "too_deep", "bad_json")
        return
    assert stored == json.dumps([value], ensure_ascii=must_escape, separators=(",", ":"))


@given(st.binary(min_size=1, max_size=200))
def test_any_message_survives_the_way_to_its_json_value_and_back(message: bytes) -> None:
    assert encode_message(compact(decode_message(message)).encode(), LIMITS) == message


@given(st.binary(max_size=200))
def test_any_bytes_are_valid_json_or_refused(data: bytes) -> None:
    try:
        compact_json(data)
    except ApiError as error:
        assert (error.status, error.error) in [(400, "bad_json"), (400, "bad_utf8")]


@pytest.mark.parametrize(
    "text",
    [
        "1.10",
        "-0",
        "1E+400",
        "true",
        '{"b":1,"a":2,"b":3}',
        '{"":{"":[]}}',
        '["\\u00e9\\/\\n","é"]',
        '{"a":"\\ud83d\\udc34"}',
        '{"base64":1}',
        '{"base64":"AAE=","b":1}',
        '{"base64":"AAE=","base64":"AAE="}',
        '[{"base64":"AAE="}]',
    ],
)
def test_the_json_of_a_message_stays_as_written(text: str) -> None:
    spread = text.replace(",", " ,\n ").replace(":", " : ").replace("[", "[ \t").encode()
    assert encode_message(compact_json(spread), LIMITS) == text.encode()


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("{}", {}),
        (' { "a" : 1 } ', {"a": "1"}),
        ('{"a":1,"b":[1, 2]}', {"a": "1", "b": "[1,2]"}),
        ('{"\\u0061":"x,}\\"","b":{"a":1,"a":2}}', {"a": '"x,}\\""', "b": '{"a":1,"a":2}'}),
    ],
)
def test_the_fields_of_an_object_stay_as_written(text: str, fields: dict[str, str]) -> None:
    found = read_object(compact_json(text.encode()))
    assert {name: value.decode() for name, value in found.items()} == fields


@pytest.mark.parametrize(
    "text",
    [
        '{"a":1,"a":1}',
        '{"a":1,"a":2}',
        '{"a":12,"a":1}',
        '{"a":1,"a":12}',
        '{"a":1,"b":2,"a":3}',
        '{"b":1,"a":1,"a":1}',
        '{"a":"x","\\u0061":"x"}',
        '{"a":[1],"a":[1,2]}',
        '{"a":1,"b":{"a":1},"b":2}',
        '{"":"","":""}',
    ],
)
def test_a_duplicate_field_is_refused(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        read_object(compact_json(text.encode()))
    assert (caught.value.status, caught.value.error) == (400, "duplicate_key")


def one_by_one(lines: list[bytes]) -> list[bytes] | None:
    """Return the messages of lines encoded one by one; None if one is invalid."""
    try:
        return [encode_message(compact_json(line), LIMITS) for line in lines if line.decode()]
    except (ApiError, UnicodeDecodeError):
        return None


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b'"a"', b'"\\u00e9"', '"é"'.encode()],
        [b'{"a":1}', b'{ "a" : [1, 2] }', b'{"b":"\\n"}'],
        [b'{"base64":"AAE="}', b'{"a":1}'],
        [b'{"a":1}', b"2"],
    ],
)
def test_lines_read_at_once_are_the_same_as_read_one_by_one(lines: list[bytes]) -> None:
    found = encode_lines(lines, LIMITS)
    assert found is None or found == one_by_one(lines)


@pytest.mark.parametrize(
    "lines",
    [
        [b'"a" "b"', b'"', b'"c"'],
        [b'"a","b"', b'"c', b'd"'],
        [b'"a" "b"', b'"c"'],
        [b'"a"', b'"b', b'"'],
        [b'{"a":[{}', b"{}]}"],
        [b'{"a":{}', b'{"b":1}}'],
        [b"{} {}", b"{}"],
        [b"{},{}", b'{"a":[{}', b"{}]}"],
        [b'{"a":"\xff"}'],
        [b'"\xff"'],
        [b'""'],
        [b'{"a":' * 33 + b"1" + b"}" * 33],
        [b"{" * 100_000 + b"}" * 100_000],
    ],
    ids=range(13),
)
def test_lines_that_are_not_one_value_each_are_never_read_at_once(lines: list[bytes]) -> None:
    assert one_by_one(lines) is None
    assert encode_lines(lines, LIMITS) is None


@given(st.lists(st.sampled_from([b'"a"', b'"', b"{}", b'{"a":[', b"]}", b'{"a":1}', b" ", b",", b'"a" "b"', b"{} {}"])))
def test_any_lines_read_at_once_are_the_same_as_read_one_by_one(lines: list[bytes]) -> None:
    found = encode_lines(lines, LIMITS)
    assert found is None or found == one_by_one(lines)


@pytest.mark.parametrize("text", [b'["a","b"]', b'["a",1,{"a":[]},{"base64":"AA=="}]', b"[[],[1]]"])
def test_a_list_becomes_the_messages_of_its_values(text: bytes) -> None:
    expected = [encode_message(compact(value).encode(), LIMITS) for value in json.loads(text)]
    assert encode_messages(text, LIMITS, 1000, lambda: None) == expected


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
    if message.isascii():
        assert text == message.decode()[:characters]


@pytest.mark.parametrize(
    ("text", "characters", "shown"),
    [
        ("abe\u0301c", 3, "ab"),
        ("abe\u0301c", 4, "abe\u0301"),
        ("a👍🏽b", 2, "a"),
        ("a👩\u200d👧b", 2, "a"),
        ("a👩\u200d👧b", 3, "a"),
        ("e\u0301", 1, "e"),  # never empty
    ],
)
def test_a_preview_never_splits_a_letter_from_its_accent(text: str, characters: int, shown: str) -> None:
    assert preview(text.encode(), len(text.encode()), characters)["preview"] == shown


@pytest.mark.parametrize("text", ["a\n\r\x00b", "žluťoučký", "\ud800", "x" * 1000])
def test_any_text_can_be_quoted_in_a_sentence(text: str) -> None:
    shown = quoted(text)
    assert shown.isascii()
    assert shown.isprintable()
    assert len(shown) <= 62


def test_the_names_of_an_object_are_counted_before_it_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def names(count: int) -> bytes:
        return b"{" + b",".join(b'"%d":[1]' % number for number in range(count)) + b"}"

    assert len(read_object(names(1000))) == 1000
    assert len(read_object(b'{"message":' + names(5000) + b',"a":1}')) == 2  # a message has as many as it likes
    monkeypatch.setattr(raw_json, "_object", None)
    for text in (names(1001), b"{" + b",".join([b'"a":1'] * 1001) + b"}"):
        with pytest.raises(ApiError, match="more than 1000 names") as caught:
            read_object(text)
        assert (caught.value.status, caught.value.error) == (400, "bad_json")
