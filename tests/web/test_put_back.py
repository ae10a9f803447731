"""Limits apply to new messages only: a popped message can be put back, and a waiting one removed, whatever its size."""

import base64
import json
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Api
from tests.servers import App, Store
from web.input.codec import MAX_VALUE_BYTES

FORM, JSON = "application/x-www-form-urlencoded", "application/json"
TEXT, BYTES, NDJSON = "text/plain", "application/octet-stream", "application/x-ndjson"
LARGE = b"larger than the limits of this app " * 20
OLD = {"empty": b"", "large": LARGE, "bytes": b"\xff\x00" * 400}
LIMITS = {"max_message_bytes": 100, "max_body_bytes": 200}


@pytest.fixture
def small(api: Api) -> Api:
    """The routes of a queue in an app with small limits."""
    return api.with_settings(**LIMITS)


def value_of(message: bytes) -> Any:
    """Return the JSON value of a message, as an answer has it."""
    try:
        return message.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(message).decode()}


def bodies(message: bytes) -> dict[str, tuple[bytes, str]]:
    """Return the body and content type of every way to send a message, by name."""
    value = value_of(message)
    encoded = {"base64": base64.b64encode(message).decode()}
    found = {
        "json": (json.dumps({"message": value}).encode(), JSON),
        "base64": (json.dumps({"message": encoded}).encode(), JSON),
        "json as a form": (json.dumps({"message": value}).encode(), FORM),
        "bytes": (message, BYTES),
    }
    if isinstance(value, str):
        found["form"] = (urllib.parse.urlencode({"message": value}).encode(), FORM)
        found["text"] = (message, TEXT)
    return found


CASES = [(old, way) for old, message in OLD.items() for way in bodies(message)]


@pytest.mark.parametrize(("old", "way"), CASES)
def test_what_was_popped_can_be_put_back(small: Api, old: str, way: str) -> None:
    small.client.lpush(small.key, OLD[old], b"behind")
    popped = small.post("pop").json["message"]
    assert popped == value_of(OLD[old])
    answer = small.post("push?front=1", *bodies(OLD[old])[way])
    assert answer.json == {"success": True, "message": popped, "count": 2}
    assert small.messages() == [OLD[old], b"behind"]


@pytest.mark.parametrize(("old", "way"), CASES)
def test_a_listed_message_can_be_removed(small: Api, old: str, way: str) -> None:
    small.client.lpush(small.key, b"first", OLD[old], b"last")
    body, kind = bodies(OLD[old])[way]
    answer = small.post("remove?position=1", body, kind)
    assert answer.json == {"success": True, "message": value_of(OLD[old])}
    assert small.messages() == [b"first", b"last"]


@pytest.mark.parametrize("old", OLD)
def test_the_position_to_remove_is_accepted_in_the_body_too(small: Api, old: str) -> None:
    small.client.lpush(small.key, OLD[old])
    assert small.post("remove", json={"position": 0, "message": value_of(OLD[old])}).status_code == 200
    assert small.messages() == []


def test_a_popped_batch_can_be_put_back(small: Api) -> None:
    small.client.lpush(small.key, *OLD.values())
    popped = small.post("pop?max=10").json["messages"]
    assert small.messages() == []
    answer = small.post("push?front=true", json={"messages": popped}, headers={"Idempotency-Key": "a"})
    assert answer.json == {"success": True, "pushed": 3, "count": 3}
    assert small.messages() == list(OLD.values())


@pytest.mark.parametrize(
    "query", ["", "?front=0", "?front=1&front=1", "?front=1&front=0", "?front=", "?nxt=1", "?front=2"]
)
def test_no_other_query_lifts_the_limits(small: Api, query: str) -> None:
    for old, way in CASES:
        assert small.post("push" + query, *bodies(OLD[old])[way]).status_code in (400, 413), (old, way)
    assert small.messages() == []


@pytest.mark.parametrize("message", ["", "x" * 101])
def test_front_in_the_body_does_not_lift_the_limits(small: Api, message: str) -> None:
    for body, kind in [
        (json.dumps({"message": message, "front": True}).encode(), JSON),
        (urllib.parse.urlencode({"message": message, "front": 1}).encode(), FORM),
    ]:
        assert small.post("push", body, kind).json["error"] in ("empty_message", "message_too_large")
    assert small.messages() == []


@pytest.mark.parametrize("path", ["push?each=line", "push?each=line&front=1", "push"])
def test_the_limits_apply_to_streams(small: Api, path: str) -> None:
    assert small.post(path, LARGE, TEXT if "each" in path else NDJSON).status_code in (400, 413)
    assert small.messages() == []


@pytest.mark.parametrize("operation", ["pop", "ack", "clear", "restore", "reserve", "extend", "release"])
def test_the_body_limit_applies_to_other_operations(small: Api, operation: str) -> None:
    answer = small.post(operation, b"id=" + b"x" * 300, FORM)
    assert (answer.status_code, answer.json["error"], answer.json["limit"]) == (413, "body_too_large", 200)


def test_a_message_larger_than_redis_stores_is_refused(small: Api) -> None:
    answer = small.post("push?front=1", b"x", BYTES, environ_overrides={"CONTENT_LENGTH": str(MAX_VALUE_BYTES + 1)})
    assert (answer.status_code, answer.json["error"], answer.json["limit"]) == (413, "body_too_large", MAX_VALUE_BYTES)


def test_null_and_no_message_are_refused(small: Api) -> None:
    for body, kind in [(b'{"message":null}', JSON), (b"", JSON), (b"", None), (b"", FORM), (b"{}", JSON)]:
        assert small.post("push?front=1", body, kind).status_code == 400
        assert small.post("remove?position=0", body, kind).status_code == 400
    assert small.messages() == []


@pytest.mark.parametrize("kind", [NDJSON, "text/xml", "multipart/form-data"])
def test_remove_refuses_a_stream(small: Api, kind: str) -> None:
    assert small.post("remove?position=0", b"1", kind).status_code == 415
    assert small.post("remove?position=0&each=line", b"1", TEXT).status_code == 400


@pytest.mark.parametrize("encoding", [TEXT, BYTES])
def test_remove_refuses_another_text(small: Api, encoding: str) -> None:
    small.client.lpush(small.key, LARGE)
    assert small.post("remove?position=0", LARGE + b"x", encoding).json["error"] == "stale"
    assert small.messages() == [LARGE]


@pytest.mark.slow
def test_a_message_larger_than_the_limits_is_popped_and_put_back(
    serve: Callable[..., App], valkey: Store, name: str
) -> None:
    site, client = serve(REDIS_URL=valkey.url, WEB_CONCURRENCY="1"), valkey.client()

    def post(operation: str, body: bytes = b"", kind: str = BYTES) -> bytes:
        headers = {"Content-Type": kind, "Accept": "text/plain" if operation == "pop" else JSON}
        request = urllib.request.Request(f"{site.url}/api/queue/{name}/{operation}", body, headers, method="POST")
        with urllib.request.urlopen(request, timeout=60) as answer:
            found: bytes = answer.read()
        return found

    for message in (b"x" * (20 << 20), b"\xff" * (20 << 20)):
        client.lpush(f"queue:{name}", message)
        assert post("pop") == message
        post("push?front=1", message)
        assert post("pop") == message
        post("push?front=1", json.dumps({"message": value_of(message)}).encode(), JSON)
        assert client.lrange(f"queue:{name}", 0, -1) == [message]
        post("remove?position=0", message)
        assert client.exists(f"queue:{name}") == 0


def test_an_empty_message_of_another_client_is_read_and_popped(api: Api) -> None:
    api.client.lpush(api.key, b"")
    assert api.get("all").json["messages"] == [""]
    assert api.get("all?preview=5").json["messages"] == [{"preview": "", "bytes": 0}]
    assert api.post("pop", headers={"Accept": "text/plain"}).status_code == 200
    assert api.post("pop", headers={"Accept": "text/plain"}).status_code == 204
