"""Request bodies: each media type stores its message byte for byte; every invalid body is refused."""

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import create_app
from settings import Settings
from tests.conftest import Api
from tests.servers import FakeRedis
from tests.web.helpers import BYTES, FORM, JSON, TEXT
from web.errors import ApiError
from web.input.body import read_fields
from web.reference.openapi import CLOUD_EVENT
from web.request import current_request

MIB = 1 << 20
BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize(
    ("kind", "body", "stored"),
    [
        (JSON, '{"message": "hello"}', "hello"),
        (JSON, '{"message": "žluťoučký kůň 🐎\\n\\u0000\\t\\""}', 'žluťoučký kůň 🐎\n\0\t"'),
        (JSON, '{"message": "\\ud83d\\udc0e"}', "🐎"),
        (JSON, '{"message": " "}', " "),
        (JSON, '{"message": "null"}', "null"),
        (JSON, '{"message": "{\\"a\\": 1}"}', '{"a": 1}'),
        (JSON, '\ufeff{"message": "a"}', "a"),
        (JSON, '\r\n\t {"message":"a"} \n', "a"),
        (JSON, '{"message": 1.10}', "1.10"),
        (JSON, '{"message": -0}', "-0"),
        (JSON, '{"message": -0.0}', "-0.0"),
        (JSON, '{"message": 1E+400}', "1E+400"),
        (JSON, '{"message": 1e-999}', "1e-999"),
        (JSON, '{"message": %s}' % ("9" * 10_000), "9" * 10_000),
        (JSON, '{"message": 0.1000000000000000055511151231257827}', "0.1000000000000000055511151231257827"),
        (JSON, '{"message": true}', "true"),
        (JSON, '{"message": false}', "false"),
        (JSON, '{"message": 0}', "0"),
        (JSON, '{"message": []}', "[]"),
        (JSON, '{"message": {}}', "{}"),
        (JSON, '{"message": {"b": [1.10, null, "ž", {"a" : ""}], "a": 1 }}', '{"b":[1.10,null,"ž",{"a":""}],"a":1}'),
        (JSON, '{"message": {"\\u0001</script>\\u2028": "\\u001f"}}', '{"\\u0001</script>\\u2028":"\\u001f"}'),
        (JSON, '{"message": {"base64": "/wAK"}}', b"\xff\x00\n"),
        (JSON, '{"message": {"base64": "YQ=="}}', "a"),
        (JSON, '{"message": {"base64": 5}}', '{"base64":5}'),
        (JSON, '{"message": {"a": [{"b": 1, "b": 1}]}}', '{"a":[{"b":1,"b":1}]}'),
        (JSON, '{"message": {"base64": "YQ==", "more": 1}}', '{"base64":"YQ==","more":1}'),
        (JSON, '{"message": %s}' % ("[" * 32 + "]" * 32), "[" * 32 + "]" * 32),
        ("application/json; charset=utf-8", '{"message": "ž"}', "ž"),
        ('Application/JSON;charset="UTF-8"', '{"message": "ž"}', "ž"),
        (FORM, "message=hello", "hello"),
        (FORM, "message=a+b%20c%0A%26%C5%BE", "a b c\n&ž"),
        (FORM, "message=ž", "ž"),
        (FORM, "message=a;b=c;message=d", "a;b=c;message=d"),
        (FORM, "message=a=b==", "a=b=="),
        (FORM, "message={1}", "{1}"),
        (FORM, "message=%00", "\0"),
        (FORM, '{"message": "people forget the header"}', "people forget the header"),
        (FORM, ' \n{"message": {"a": 1.10}}', '{"a":1.10}'),
        (FORM, '{"message": "a&b=c%20"}', "a&b=c%20"),
        (TEXT, "hello\n", "hello\n"),
        (TEXT, "\ufeffž\r\n\0", "\ufeffž\r\n\0"),
        (TEXT, '{"message": "this is text"}', '{"message": "this is text"}'),
        ("text/plain; charset=us-ascii", "a", "a"),
        (BYTES, bytes(range(256)), bytes(range(256))),
        (BYTES, "ž", "ž"),
        (TEXT, b"x" * MIB, b"x" * MIB),
        (JSON, '{"message": "%s"}' % ("ž" * (MIB // 2)), "ž" * (MIB // 2)),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_message_is_stored_byte_for_byte_and_comes_back(api: Api, kind: str, body: Any, stored: Any) -> None:
    stored = stored.encode() if isinstance(stored, str) else stored
    answer = api.post("push", body.encode() if isinstance(body, str) else body, kind)
    assert (answer.status_code, api.messages()) == (200, [stored])
    back = api.post("pop").json["message"]
    assert answer.json["message"] == back
    assert (base64.b64decode(back["base64"]) if isinstance(back, dict) else back.encode()) == stored


@pytest.mark.parametrize(
    ("kind", "body", "status", "error"),
    [
        (JSON, "", 400, "bad_message"),
        (JSON, " ", 400, "bad_json"),
        (JSON, "{", 400, "bad_json"),
        (JSON, "hello", 400, "bad_json"),
        (JSON, '"hello"', 400, "bad_json"),
        (JSON, "[]", 400, "bad_json"),
        (JSON, "null", 400, "bad_json"),
        (JSON, "1", 400, "bad_json"),
        (JSON, "{}", 400, "bad_message"),
        (JSON, '{"mesage": "a"}', 400, "unknown_parameter"),
        (JSON, '{"message": "a", "other": [[1]]}', 400, "unknown_parameter"),
        (JSON, '{"message": null}', 400, "empty_message"),
        (JSON, '{"message": ""}', 400, "empty_message"),
        (JSON, '{"messages": []}', 400, "bad_message"),
        (JSON, '{"messages": null}', 400, "bad_message"),
        (JSON, '{"messages": "ab"}', 400, "bad_message"),
        (JSON, '{"messages": {"a": 1}}', 400, "bad_message"),
        (JSON, '{"messages": ["a", null]}', 400, "empty_message"),
        (JSON, '{"messages": ["a", ""]}', 400, "empty_message"),
        (JSON, '{"messages": ["a", {"base64": "!"}]}', 400, "bad_base64"),
        (JSON, '{"message": "a", "messages": ["b"]}', 400, "bad_message"),
        (JSON, '{"message": "a", "message": "b"}', 400, "duplicate_key"),
        (JSON, '{"message": {"\\ud800": 1}}', 400, "bad_utf8"),
        (JSON, '{"message": NaN}', 400, "bad_json"),
        (JSON, '{"message": [Infinity]}', 400, "bad_json"),
        (JSON, '{"message": -Infinity}', 400, "bad_json"),
        (JSON, '{"message": "a", "other": NaN}', 400, "bad_json"),
        (JSON, '{"message": 01}', 400, "bad_json"),
        (JSON, '{"message": 1.}', 400, "bad_json"),
        (JSON, '{"message": .5}', 400, "bad_json"),
        (JSON, '{"message": +1}', 400, "bad_json"),
        (JSON, '{"message": "a",}', 400, "bad_json"),
        (JSON, '{"message": "a"} x', 400, "bad_json"),
        (JSON, '{"message": "a"}{"message": "b"}', 400, "bad_json"),
        (JSON, '{"message": "a\nb"}', 400, "bad_json"),
        (JSON, "{'message': 'a'}", 400, "bad_json"),
        (JSON, '{"message": "\\ud800"}', 400, "bad_utf8"),
        (JSON, '{"message": "\\udc00\\ud800"}', 400, "bad_utf8"),
        (JSON, '{"message": ["\\ud800"]}', 400, "bad_utf8"),
        (JSON, '{"message": {"\\udfff": 1}}', 400, "bad_utf8"),
        (JSON, '{"message": {"base64": "\\ud800"}}', 400, "bad_utf8"),
        (JSON, b'{"message": "\xff"}', 400, "bad_utf8"),
        (JSON, b'{"message": "\xed\xa0\x80"}', 400, "bad_utf8"),
        (JSON, b'{"message": "\xc0\x80"}', 400, "bad_utf8"),
        (JSON, '{"message": "a"}'.encode("utf-16"), 400, "bad_utf8"),
        (JSON, '{"message": {"base64": ""}}', 400, "empty_message"),
        (JSON, '{"message": {"base64": "YQ"}}', 400, "bad_base64"),
        (JSON, '{"message": {"base64": "YQ==\\n"}}', 400, "bad_base64"),
        (JSON, '{"message": {"base64": "Y-_="}}', 400, "bad_base64"),
        (JSON, '{"message": {"base64": "ž"}}', 400, "bad_base64"),
        (JSON, '{"message": %s}' % ("[" * 33 + "]" * 33), 400, "too_deep"),
        (JSON, '{"message": ' + '{"a":' * 33 + "1" + "}" * 34, 400, "too_deep"),
        (JSON, '{"message": %s}' % ("[" * 100_000 + "]" * 100_000), 400, "too_deep"),
        (JSON, '{"message": ' + "[" * 500_000, 400, "too_deep"),
        (JSON, '{"message": ' + "[" * 1_000_000, 400, "too_deep"),
        (JSON, '{"message": ' + '{"a":' * 100_000, 400, "too_deep"),
        (JSON, '{"message": "%s"}' % ("x" * (MIB + 1)), 413, "message_too_large"),
        (JSON, '{"messages": ["a", "%s"]}' % ("ž" * (MIB // 2 + 1)), 413, "message_too_large"),
        (JSON, '{"message": %s}' % ("1" * (MIB + 1)), 413, "message_too_large"),
        (JSON, '{"messages": [' + "1," * 100_000 + "1]}", 413, "too_many_messages"),
        (JSON, " " * (16 * MIB + 1), 413, "body_too_large"),
        (FORM, "", 400, "bad_message"),
        (FORM, "hello", 400, "unknown_parameter"),
        (FORM, "message", 400, "empty_message"),
        (FORM, "message=", 400, "empty_message"),
        (FORM, "messages=a", 400, "bad_message"),
        (FORM, "message=a&message=b", 400, "duplicate_key"),
        (FORM, "message=a&other=1&other=2", 400, "duplicate_key"),
        (FORM, "other=1&message=a&=", 400, "unknown_parameter"),
        (FORM, "message=%FF", 400, "bad_utf8"),
        (FORM, b"message=\xff", 400, "bad_utf8"),
        (FORM, "message=%ED%A0%80", 400, "bad_utf8"),
        (FORM, "&".join(f"a{n}=" for n in range(1001)), 400, "bad_form"),
        (FORM, "{message: 1}", 400, "bad_json"),
        (TEXT, "", 400, "empty_message"),
        (TEXT, b"\xff", 400, "bad_utf8"),
        (TEXT, b"\xed\xa0\x80", 400, "bad_utf8"),
        (TEXT, "x" * (MIB + 1), 413, "message_too_large"),
        (BYTES, "", 400, "empty_message"),
        (BYTES, "x" * (MIB + 1), 413, "message_too_large"),
        (BYTES, "x" * (16 * MIB + 1), 413, "body_too_large"),
        (None, '{"message": "a"}', 415, "unsupported_type"),
        ("", "message=a", 415, "unsupported_type"),
        ("text/html", "a", 415, "unsupported_type"),
        ("application/xml", "<a/>", 415, "unsupported_type"),
        (CLOUD_EVENT, "", 400, "empty_message"),
        (CLOUD_EVENT, " ", 400, "bad_json"),
        (CLOUD_EVENT, "a", 400, "bad_json"),
        (CLOUD_EVENT, "{} {}", 400, "bad_json"),
        (CLOUD_EVENT, '"\\ud800"', 400, "bad_utf8"),
        (CLOUD_EVENT, b'"\xff"', 400, "bad_utf8"),
        (CLOUD_EVENT, "[" * 33 + "]" * 33, 400, "too_deep"),
        (CLOUD_EVENT, f'"{"x" * MIB}"', 413, "message_too_large"),
        (CLOUD_EVENT + ";charset=latin-1", "1", 415, "unsupported_type"),
        ("nonsense", "a", 415, "unsupported_type"),
        (";;=,", "a", 415, "unsupported_type"),
        ("text/plain; charset=latin-1", "a", 415, "unsupported_type"),
        ("application/json; charset=utf-16", '{"message": "a"}'.encode("utf-16"), 415, "unsupported_type"),
        ("multipart/form-data; boundary=x", "--x\r\n\r\na\r\n--x--\r\n", 415, "unsupported_type"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_an_invalid_body_is_refused_and_stores_nothing(
    api: Api, kind: str | None, body: Any, status: int, error: str
) -> None:
    answer = api.post("push", body.encode() if isinstance(body, str) else body, kind)
    assert (answer.status_code, answer.json["success"], answer.json["error"]) == (status, False, error)
    assert isinstance(answer.json["message"], str) and len(answer.json["message"]) < 300
    assert "\n" not in answer.json["message"]
    if status == 413:
        assert str(answer.json["limit"]) in answer.json["message"]
    assert api.messages() == []


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "identity, gzip", "nonsense"])
def test_an_encoded_body_is_refused(api: Api, encoding: str) -> None:
    answer = api.post("push", b"message=a", FORM, headers={"Content-Encoding": encoding})
    assert (answer.status_code, answer.json["error"], api.messages()) == (415, "unsupported_encoding", [])
    assert api.post("push", b"message=a", FORM, headers={"Content-Encoding": "Identity"}).json["success"]


@pytest.mark.parametrize("kind", [JSON, FORM, TEXT, BYTES, None])
def test_pop_accepts_an_empty_body_of_any_type(api: Api, kind: str | None) -> None:
    api.post("push", json={"message": "a"})
    assert api.post("pop", b"", kind).json["message"] == "a"


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [(JSON, b"[]", 400), (JSON, b"{", 400), (TEXT, b"a", 415), (FORM, b"max=1&max=1", 400), (FORM, b"%FF=%FF", 400)],
)
def test_pop_with_an_invalid_body_takes_nothing(api: Api, kind: str, body: bytes, status: int) -> None:
    api.post("push", json={"message": "a"})
    assert (api.post("pop", body, kind).status_code, api.messages()) == (status, [b"a"])


def test_all_distinguishes_text_from_bytes(api: Api) -> None:
    api.post("push", json={"messages": ["ž", {"base64": "xL4="}, {"base64": "xA=="}, '{"base64": "xA=="}']})
    assert api.get("all").json["messages"] == ["ž", "ľ", {"base64": "xA=="}, '{"base64": "xA=="}']


@pytest.mark.parametrize("value", ["1,", "{},", "1e1,"])
def test_a_list_of_too_many_values_is_refused(api: Api, value: str) -> None:
    body = '{"messages":[' + value * 1_100_000 + "1]}"
    answer = api.post("push", body, JSON)
    assert (answer.status_code, answer.json["error"], answer.json["limit"]) == (413, "too_many_values", 600_000)
    assert api.messages() == []


def test_a_list_larger_than_a_message_is_refused(api: Api) -> None:
    answer = api.post("push", '{"message":[' + "[]," * 400_000 + "1]}", JSON)
    assert (answer.status_code, answer.json["error"]) == (413, "message_too_large")


def test_half_a_million_numbers_fit_in_a_message(api: Api) -> None:
    message = "[" + "1," * 500_000 + "1]"
    padding = " " * 100_000
    assert api.post("push", f'{{"message":{padding}{message}}}', JSON).status_code == 200
    assert api.messages() == [message.encode()]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b'{"message": "one"}'),
        ("application/x-www-form-urlencoded", b'{"message": "one"}'),
        ("application/x-www-form-urlencoded", b"message=one"),
    ],
)
def test_a_byte_order_mark_before_json_or_a_form_is_dropped(api: Api, kind: str, body: bytes) -> None:
    assert api.post("push", BOM + body, kind).json["message"] == "one"
    assert api.messages() == [b"one"]


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream"])
def test_a_single_message_keeps_its_byte_order_mark(api: Api, kind: str) -> None:
    assert api.post("push", BOM + b"one", kind).status_code == 200
    assert api.post("push", json={"message": "\ufeffone"}).status_code == 200
    assert api.messages() == [BOM + b"one"] * 2


@pytest.mark.parametrize(
    ("path", "kind", "text"),
    [
        ("push?each=line", "text/plain", "one\ntwo\n"),
        ("push?each=line", "text/plain", "\none\n"),
        ("push", "text/plain", "one"),
        ("push", "application/x-ndjson", '"one"\n"two"\n'),
        ("push", "application/json", '{"message": "one"}'),
        ("push", "application/x-www-form-urlencoded", "message=one"),
        ("pop", "application/json", '{"max": 2}'),
    ],
)
def test_the_error_for_utf_16_says_so(api: Api, path: str, kind: str, text: str) -> None:
    for encoding, mark in (("utf-16", b""), ("utf-16-be", b"\xfe\xff"), ("utf-32", b"")):
        answer = api.post(path, mark + text.encode(encoding), kind)
        assert (answer.status_code, answer.json["error"]) == (400, "bad_utf8")
        assert "UTF-16" in answer.json["message"] and "UTF-8" in answer.json["message"]
    assert api.messages() == []


APP = create_app(Settings(), FakeRedis())  # for the contexts of many requests; it keeps no state


@given(st.binary(max_size=200))
def test_any_form_is_read_or_refused(data: bytes) -> None:
    with APP.test_request_context(method="POST", data=data, content_type=FORM):
        try:
            read_fields(current_request(), 1000, raw=True)
        except ApiError as error:
            assert error.status in (400, 413, 415)


@pytest.mark.parametrize(
    ("agent", "body", "is_warned"),
    [
        ("curl/8", "message=C++", True),
        ("curl/8", "message=+55 11", True),
        ("curl/8", "message=http://a/?b=c%20d", True),
        ("curl/8", "message=100%+x", True),
        ("", "message=+55 11", True),
        ("", "message=é+é", True),
        ("", 'message="50%20"', True),
        ("", "message=100%+x", True),
        ("curl/8", "message=+5511", True),
        ("curl/8", "message=C%2B%2B+%C3%A9", False),  # curl --data-urlencode
        ("curl/8", "message=timed+out", False),
        ("curl/8", "message=if+a%3A%0A++++b%0A", False),
        ("", "message=C++", False),  # Python, of two blanks
        ("curl/8", "message=fish and chips, 100% http://a/", False),  # nothing changed
        ("curl/8", "front=1&message=a", False),
        ("", "message=fish+%26+chips", False),  # Python, browsers
        ("", "message=it's+(a)+*b*!~", False),  # encodeURIComponent
        ("", "message=http://a/?b,c=d@e:f+g", False),  # with a few characters declared as safe
    ],
)
def test_a_form_that_was_not_escaped_gets_a_warning(api: Api, agent: str, body: str, is_warned: bool) -> None:
    answer = api.post("push", body.encode(), FORM, headers={"User-Agent": agent}).json
    assert answer["success"] and ("warning" in answer) == is_warned
    assert not is_warned or ("message" in answer["warning"] and "--data-urlencode" in answer["warning"])


@pytest.mark.parametrize(
    ("operation", "body", "name"),
    [
        ("result", "job=j&result=C++", "result"),
        ("move", "to=other&contains=C++", "contains"),
        ("release", "id={}&reason=C++ failed", "reason"),
        ("ack", "id={}&job=j&result=C++", "result"),
    ],
)
def test_every_text_of_a_form_can_get_the_warning(api: Api, operation: str, body: str, name: str) -> None:
    api.post("push", json={"message": "a"})
    body = body.format(api.post("reserve").json["id"]) if "{}" in body else body
    answer = api.post(operation, body.encode(), FORM, headers={"User-Agent": "curl/8"}).json
    assert answer["success"] and name in answer["warning"]


@pytest.mark.parametrize(
    "body", ['{ "a" : 1.10,\n"b": [ ] }\n', '"text"', "null", "[1, 2]", '{"message": "a", "message": 1}', "\ufeff{}"]
)
@pytest.mark.parametrize(
    ("path", "kind"), [("push", CLOUD_EVENT), ("push?raw=1", JSON), ("push?raw=true", CLOUD_EVENT)]
)
def test_json_that_is_the_message_itself_is_kept_byte_for_byte(api: Api, path: str, kind: str, body: str) -> None:
    assert api.post(path, body.encode(), kind).json == {"success": True, "message": body, "count": 1}
    assert api.messages() == [body.encode()]
    kept = api.post(f"remove?position=0&{path.partition('?')[2]}", body.encode(), kind).json
    assert (kept["success"], api.messages()) == (True, [])


def test_json_that_is_the_message_itself_leaves_the_query_for_the_other_parameters(api: Api) -> None:
    assert api.post("push?raw=1&delay=60", b'{"delay": 1}', JSON).json["id"]
    assert api.post("push?raw=0", b'{"message": "a"}', JSON).json["message"] == "a"
    for path, kind, status, error in [
        ("push?raw=1", FORM, 415, "unsupported_type"),
        ("push?raw=2", JSON, 400, "bad_parameter"),
        ("push?raw=1&raw=1", JSON, 400, "duplicate_key"),
        ("push?raw=1", "application/x-ndjson", 400, "bad_parameter"),
        ("release", CLOUD_EVENT, 415, "unsupported_type"),
    ]:
        answer = api.post(path, b'{"message":"b"}', kind)
        assert (answer.status_code, answer.json["error"]) == (status, error), path
    assert api.messages() == [b"a"]


def test_a_multipart_form_is_refused_with_what_to_send_instead(api: Api) -> None:
    answer = api.post("push", b"--x--", "multipart/form-data; boundary=x")
    assert answer.status_code == 415
    assert all(one in answer.json["message"] for one in (TEXT, BYTES, "--data-binary")), answer.json
