"""What a verb does not know is refused, whichever way it is sent; so is an Idempotency-Key that would not be kept."""

import io
from typing import Any

import pytest

from tests.conftest import Api
from web.operations import VERBS

FORM, JSON, NDJSON = "application/x-www-form-urlencoded", "application/json", "application/x-ndjson"
GETS = [verb.name for verb in VERBS if verb.method == "GET"]
POSTS = [verb.name for verb in VERBS if verb.method == "POST"]
NO_QUEUE = ["/api/queues", "/healthz"]  # routes without a queue


def ask(api: Api, verb: str, query: str = "", **request: Any) -> Any:
    return (api.get if verb in GETS else api.post)(verb + query, **request)


def refused(answer: Any, code: str, parameter: str | None = None) -> bool:
    """Return whether it is a 400 with this code and a sentence; `parameter` is the one that it names."""
    named = parameter is None or answer.json["parameter"] == parameter
    return (answer.status_code, answer.json["error"]) == (400, code) and bool(answer.json["message"]) and named


# --- the query


@pytest.mark.parametrize("verb", GETS + POSTS)
def test_every_verb_refuses_an_unknown_parameter_in_the_query(api: Api, verb: str) -> None:
    api.queue.push(b"here")
    for query, unknown in [("?nxt=1", "nxt"), ("?nxt", "nxt"), ("?=1", ""), ("?Wait=1", "Wait")]:
        assert refused(ask(api, verb, query), "unknown_parameter", unknown), query
    assert api.messages() == [b"here"]


@pytest.mark.parametrize("path", NO_QUEUE)
@pytest.mark.parametrize("query", ["?nxt=1", "?=1", "?limit=2"])
def test_routes_without_a_queue_refuse_it_too(api: Api, path: str, query: str) -> None:
    assert refused(api.http.get(path + query), "unknown_parameter")


@pytest.mark.parametrize("kind", [NDJSON, "text/plain"])
@pytest.mark.parametrize("query", ["&nxt=1", "&message=x", "&front=1", "&=", "&each=line"])
def test_a_stream_refuses_what_it_does_not_take(api: Api, kind: str, query: str) -> None:
    path = "push?each=line" if kind == "text/plain" else "push?"
    if query == "&each=line" and kind == NDJSON:
        assert api.post(path + query, b"1", kind).status_code == 415  # its lines are JSON
    else:
        assert api.post(path + query, b"1", kind).status_code == 400
    assert api.messages() == []


@pytest.mark.parametrize("kind", [None, FORM, JSON, NDJSON, "application/octet-stream"])
def test_each_is_for_text_alone(api: Api, kind: str | None) -> None:
    assert api.post("push?each=line", b"message=1", kind).status_code == 415
    assert api.messages() == []


@pytest.mark.parametrize("query", ["?each=", "?each=lines", "?each=line&each=line"])
def test_each_is_line_or_refused(api: Api, query: str) -> None:
    assert api.post("push" + query, b"a\nb", "text/plain").status_code == 400
    assert api.messages() == []


# --- the body


@pytest.mark.parametrize("verb", POSTS)
def test_every_verb_refuses_an_unknown_field(api: Api, verb: str) -> None:
    api.queue.push(b"here")
    for body, kind, unknown in [
        (b"nxt=1", FORM, "nxt"),
        (b"=1", FORM, ""),
        (b'{"nxt":1}', JSON, "nxt"),
        (b'{"nxt":null}', JSON, "nxt"),
        (b'{"":1}', JSON, ""),
        (b'{"nxt":1}', FORM, "nxt"),
    ]:
        assert refused(api.post(verb, body, kind), "unknown_parameter", unknown), body
    assert api.messages() == [b"here"]


@pytest.mark.parametrize(
    "body",
    [
        b"message=Tom & Jerry",
        b"message=Tom &=Jerry",
        b"message=Tom &",
        b"message=Tom && Jerry",
        b"&message=Tom",
        b"message=Tom &message=Jerry",
        b"message=Tom &next",
    ],
)
def test_a_message_that_an_ampersand_cuts_is_not_stored(api: Api, body: bytes) -> None:
    assert api.post("push", body, FORM).status_code == 400
    assert api.messages() == []


@pytest.mark.parametrize("body", [b"message=Tom & Jerry", b"message=Tom &", b"message=Tom && Jerry"])
def test_the_refusal_says_how_to_escape_an_ampersand(api: Api, body: bytes) -> None:
    assert "--data-urlencode" in api.post("push", body, FORM).json["message"]


def test_each_in_the_body_is_refused(api: Api) -> None:
    for body, kind in [(b'{"message":"a\\nb","each":"line"}', JSON), (b"message=a&each=line", FORM)]:
        answer = api.post("push", body, kind)
        assert refused(answer, "bad_parameter", "each")
        assert "address" in answer.json["message"]
    assert api.messages() == []


@pytest.mark.parametrize(
    ("query", "body", "kind"),
    [
        ("", b"message=a&message=b", FORM),
        ("", b"message=a&front=1&front=0", FORM),
        ("", b'{"message":"a","message":"b"}', JSON),
        ("", b'{"message":"a","front":1,"front":0}', JSON),
        ("?front=1&front=0", b"message=a", FORM),
        ("?front=1&front=1", b"a", "text/plain"),
        ("?front=1", b"message=a&front=0", FORM),
        ("?front=1", b'{"message":"a","front":null}', JSON),
    ],
)
def test_what_is_given_twice_is_refused(api: Api, query: str, body: bytes, kind: str) -> None:
    assert refused(api.post("push" + query, body, kind), "duplicate_key")
    assert api.messages() == []


@pytest.mark.parametrize("verb", GETS)
@pytest.mark.parametrize("body", [b"limit=1", b'{"limit":1}'])
def test_a_get_refuses_fields_in_a_body(api: Api, verb: str, body: bytes) -> None:
    assert refused(api.get(verb, data=body, content_type=FORM), "unexpected_body")
    chunked = {"input_stream": io.BytesIO(body), "headers": {"Transfer-Encoding": "chunked"}}
    assert refused(api.get(verb, content_type=JSON, **chunked), "unexpected_body")


@pytest.mark.parametrize("path", NO_QUEUE)
def test_routes_without_a_queue_refuse_a_body(api: Api, path: str) -> None:
    assert refused(api.http.get(path, data=b"match=a", content_type=FORM), "unexpected_body")
    assert api.http.get(path, data=b"", content_type=FORM).status_code == 200


# --- Idempotency-Key


@pytest.mark.parametrize("verb", [verb.name for verb in VERBS if not verb.idempotent])
def test_a_verb_that_keeps_no_idempotency_key_refuses_it(api: Api, verb: str) -> None:
    api.queue.push(b"here")
    for key in ("a", "", "x" * 300):
        answer = ask(api, verb, headers={"Idempotency-Key": key})
        assert refused(answer, "bad_idempotency_key"), key
        assert "push and pop" in answer.json["message"]
    assert api.messages() == [b"here"] and api.queue.state().counts.reserved == 0


@pytest.mark.parametrize("path", NO_QUEUE)
def test_routes_without_a_queue_refuse_an_idempotency_key(api: Api, path: str) -> None:
    assert refused(api.http.get(path, headers={"Idempotency-Key": "a"}), "bad_idempotency_key")


@pytest.mark.parametrize(("path", "kind"), [("push?each=line", "text/plain"), ("push", NDJSON)])
def test_a_stream_refuses_an_idempotency_key(api: Api, path: str, kind: str) -> None:
    assert refused(api.post(path, b"1", kind, headers={"Idempotency-Key": "a"}), "bad_idempotency_key")
    assert api.messages() == []
