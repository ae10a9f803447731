"""export and import: a queue with all that is known of its messages, on another server as it was."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from broker.connections.connection import connect
from tests.broker.helpers import dead_letters, reserve
from tests.conftest import Api
from tests.engines import Cluster
from tests.servers import Store
from tests.web.helpers import NDJSON, check_error

DIED = {"reason": "gone", "died": 1_700_000_000.5, "deliveries": 5}


def lines(*objects: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in objects)


def exported(api: Api) -> list[dict[str, Any]]:
    answer = api.get("export")
    assert answer.content_type == NDJSON
    return [json.loads(line) for line in answer.data.splitlines()]


def import_into(api: Api, data: bytes, **request: Any) -> Any:
    return api.post("import", data, NDJSON, **request)


@pytest.mark.parametrize("target", ["valkey", "redis7", "cluster"])
def test_an_exported_queue_is_the_same_on_another_server(
    request: pytest.FixtureRequest, api: Api, api_on: Callable[[str], Api], target: str
) -> None:
    queue = api.queue
    queue.push(b"fails", b"in flight", b"dies", b"b\xff", b"")
    fails, _, dies = reserve(queue, 3)
    queue.release(fails.id, reason="slow")
    queue.release(dies.id, dead=True, reason="gone")
    queue.push_later(1000, [b"later"])
    dead_letters(queue).push(b"by hand")
    before = exported(api)
    assert [(one["message"], one["state"]) for one in before] == [
        ("in flight", "reserved"),
        ("later", "delayed"),
        ("fails", "waiting"),
        ({"base64": "Yv8="}, "waiting"),
        ("", "waiting"),
        ("dies", "dead"),
        ("by hand", "dead"),
    ]
    store: Store | Cluster = request.getfixturevalue(target)
    other = api_on(store.url)
    answer = import_into(other, api.get("export").data)
    assert answer.json == {"success": True, "imported": 7, "count": 4}
    assert exported(other) == [before[1], {**before[0], "state": "waiting"}, *before[2:]]


def test_reserved_dead_letters_are_exported_as_dead(api: Api) -> None:
    import_into(api, lines({"message": "a", "state": "dead", **DIED}, {"message": "b", "state": "dead"}))
    reserve(dead_letters(api.queue))
    assert [(one["message"], one["state"]) for one in exported(api)] == [("a", "dead"), ("b", "dead")]


def test_a_queue_longer_than_a_chunk_is_exported_whole_and_in_order(api: Api) -> None:
    sent = [{"message": f"{number}", "state": "waiting", "deliveries": 1, "failed": 1.0} for number in range(2500)]
    assert import_into(api, lines(*sent)).json["imported"] == 2500
    assert exported(api) == sent


def test_an_import_with_a_key_happens_once_or_not_at_all(api: Api) -> None:
    headers = {"Idempotency-Key": "k"}
    first, second = (import_into(api, lines({"message": "a"}), headers=headers).json for _ in range(2))
    assert first == second == {"success": True, "imported": 1, "count": 1}
    check_error(import_into(api, lines({"message": "b"}), headers=headers), 409, "conflict")
    other = {"Idempotency-Key": "other"}
    broken = lines({"message": "c"}, {"message": "d", "ttl": 5})
    found = check_error(import_into(api, broken, headers=other), 400, "unknown_parameter")
    assert (found["imported"], found["line"]) == (0, 2)
    check_error(import_into(api, lines(*[{"message": "e"}] * 1001), headers=other), 413, "too_many_messages")
    assert api.messages() == [b"a"]


@pytest.mark.parametrize(
    ("line", "status", "error"),
    [
        (b"{", 400, "bad_json"),
        (b'"text"', 400, "bad_json"),
        (b"{}", 400, "bad_parameter"),
        (b'{"message":null}', 400, "empty_message"),
        (b'{"message":"x","message":"y"}', 400, "duplicate_key"),
        (b'{"message":"x","ttl":1}', 400, "unknown_parameter"),
        (b'{"message":"x","state":"lost"}', 400, "bad_parameter"),
        (b'{"message":"x","state":"delayed"}', 400, "bad_parameter"),
        (b'{"message":"x","deadline":1}', 400, "bad_parameter"),
        (b'{"message":"x","deliveries":-1}', 400, "bad_parameter"),
        (b'{"message":"x","died":1e13}', 400, "bad_parameter"),
        (b'{"message":"x","reason":"%s"}' % (b"r" * 1001), 400, "bad_parameter"),
        (b'{"message":"%s"}' % (b"x" * 101), 413, "message_too_large"),
        (b'{"message":"\xff"}', 400, "bad_utf8"),
    ],
)
def test_a_line_that_is_not_valid_ends_the_import_and_is_named(api: Api, line: bytes, status: int, error: str) -> None:
    answer = import_into(api.with_settings(max_message_bytes=100), lines({"message": "before"}) + line + b"\n{}")
    found = check_error(answer, status, error)
    assert (found["imported"], found["line"]) == (1, 2)
    assert api.messages() == [b"before"]


def test_an_export_that_fails_at_once_is_an_error(api: Api) -> None:
    api.client.set(api.key, "no list")
    check_error(api.get("export"), 409, "wrong_type")


def test_an_import_takes_nothing_but_lines_of_json(api: Api) -> None:
    for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
        check_error(api.post("import", b'{"message":"x"}', kind), 415, "unsupported_type")
    check_error(api.post("import?front=1", b'{"message":"x"}', NDJSON), 400, "unknown_parameter")
    assert api.messages() == []


def test_an_import_into_a_full_redis_says_how_much_was_stored(
    api_on: Callable[[str], Api], own_store: Callable[..., Store]
) -> None:
    store = own_store("valkey", "--maxmemory", "8mb")
    other, line = api_on(store.url), lines({"message": "x" * 10_000})
    found = check_error(import_into(other, line * 2000), 507, "redis_full")
    assert 0 < found["imported"] == connect(store.url).llen(other.key) < 2000


def test_an_import_of_nothing_stores_nothing(api: Api) -> None:
    assert import_into(api, b"").json == {"success": True, "imported": 0, "count": 0}
    assert exported(api) == []
