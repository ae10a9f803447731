"""Pause, limits and results under gunicorn: who waits is woken at once, whichever process did it."""

import http.client
import json
from collections.abc import Callable
from typing import Any

import pytest

from broker.queue import ReliableQueue
from tests.broker.helpers import numbered, reserve
from tests.servers import App, Store, until
from tests.web.live.test_long_poll_over_http import answer, ask, waiters


def wait_for_result(app: App, name: str, job: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=60)
    connection.request("GET", f"/api/queue/{name}/result?job={job}&wait=60")
    return connection


@pytest.mark.parametrize("operation", ["pop", "reserve"])
def test_those_who_wait_on_a_paused_queue_get_a_message_each_at_a_resume(
    site: App, valkey: Store, name: str, operation: str
) -> None:
    queue = ReliableQueue(valkey.client(), name)
    early = ask(site, f"/api/queue/{name}/{operation}?wait=60")
    until(lambda: waiters(site, name) == 1)
    queue.pause()
    late = ask(site, f"/api/queue/{name}/{operation}?wait=60")
    until(lambda: waiters(site, name) == 2)
    queue.push(b"a", b"b")
    assert answer(ask(site, f"/api/queue/{name}/{operation}"))[1]["error"] == "paused"
    assert (waiters(site, name), queue.all()) == (2, [b"a", b"b"])
    assert answer(ask(site, f"/api/queue/{name}/resume"))[1]["paused"] is False
    assert sorted(answer(one)[1]["message"] for one in (early, late)) == ["a", "b"]


def test_each_place_that_becomes_free_serves_one_of_those_who_wait(site: App, valkey: Store, name: str) -> None:
    queue = ReliableQueue(valkey.client(), name)
    queue.push(*numbered(9))
    assert answer(ask(site, f"/api/queue/{name}/settings?at_once=1"))[1]["at_once"] == 1
    reserve(queue)
    waiting = [ask(site, f"/api/queue/{name}/reserve?wait=60") for _ in range(8)]  # on both workers
    until(lambda: waiters(site, name) == 8)
    for left in range(7, -1, -1):
        [held] = queue.in_flight("reserved", 9, 9)
        assert answer(ask(site, f"/api/queue/{name}/ack?id={held.id}"))[0] == 200
        until(lambda left=left: waiters(site, name) == left)  # type: ignore[misc]
    assert sorted(answer(one)[1]["message"] for one in waiting) == sorted(map(str, range(1, 9)))


@pytest.mark.parametrize("way", ["stored", "acked", "acked over HTTP"])
def test_those_who_wait_for_a_result_get_it_at_once(site: App, valkey: Store, name: str, way: str) -> None:
    queue = ReliableQueue(valkey.client(), name)
    asked = [wait_for_result(site, name, job) for job in ("one", "one", "two")]
    queue.push(b"a")
    id = queue.reserve().messages[0].id
    if way == "stored":
        queue.store_result("one", b"\xffdone")
    elif way == "acked":
        queue.ack_with(id, "one", b"\xffdone")
    else:
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
        body = json.dumps({"id": id, "job": "one", "result": {"base64": "/2RvbmU="}})
        connection.request("POST", f"/api/queue/{name}/ack", body, {"Content-Type": "application/json"})
        assert answer(connection) == (200, {"success": True, "acked": 1})
    found: list[tuple[int, dict[str, Any]]] = [answer(one) for one in asked[:2]]
    assert [(status, each["result"]) for status, each in found] == [(200, {"base64": "/2RvbmU="})] * 2
    queue.store_result("two", b"2")
    assert json.dumps(answer(asked[2])[1]["result"]) == '"2"'


@pytest.mark.slow
def test_a_client_that_left_waits_no_more_for_a_result(serve: Callable[..., App], valkey: Store, name: str) -> None:
    app = serve(REDIS_URL=valkey.url, WEB_CONCURRENCY="1", MAX_BLOCKED_CLIENTS="1")

    def is_refused() -> bool:
        return answer(ask(app, f"/api/queue/{name}/pop?wait=0.01"))[0] == 429

    asked = wait_for_result(app, name, "job")
    with pytest.raises(TimeoutError):  # it waits
        asked.sock.settimeout(0.5)
        asked.sock.recv(1)
    assert is_refused()
    asked.close()
    until(lambda: not is_refused())
