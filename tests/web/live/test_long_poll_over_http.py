"""Waiting over HTTP: a client gets its message, and one that disconnects or is refused has taken nothing."""

import http.client
import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.servers import App, Store, until


def ask(app: App, path: str, fields: dict[str, Any] | None = None) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=60)
    connection.request("POST", path, json.dumps(fields) if fields else "", {"Content-Type": "application/json"})
    return connection


def answer(connection: http.client.HTTPConnection) -> tuple[int, dict[str, Any]]:
    response = connection.getresponse()
    found = response.status, json.loads(response.read())
    connection.close()
    return found


def call(app: App, path: str, fields: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
    return answer(ask(app, path, fields))


def waiters(app: App, name: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", app.port, timeout=60)
    connection.request("GET", f"/api/queue/{name}/count")
    return int(answer(connection)[1]["waiters"])


@pytest.mark.parametrize("operation", ["pop", "reserve"])
def test_a_waiting_client_is_counted_and_served(site: App, valkey: Store, name: str, operation: str) -> None:
    asked = ask(site, f"/api/queue/{name}/{operation}?wait=60")
    until(lambda: waiters(site, name) == 1)
    valkey.client().lpush(f"queue:{name}", "a")
    status, found = answer(asked)
    assert (status, found["success"], found["message"]) == (200, True, "a")
    until(lambda: waiters(site, name) == 0)


def test_a_delay_that_begins_meanwhile_ends_for_a_client_on_several_queues(site: App, name: str) -> None:
    asked = ask(site, f"/api/queue/{name},{name}x/pop?wait=50")
    until(lambda: waiters(site, f"{name}x") == 1)
    assert call(site, f"/api/queue/{name}x/push?delay=0.5", {"message": "a"})[0] == 200
    assert answer(asked)[1] == {"success": True, "message": "a", "queue": f"{name}x"}


@pytest.mark.slow
def test_too_many_waiting_clients_are_429_and_one_that_leaves_makes_room(
    serve: Callable[..., App], valkey: Store, name: str
) -> None:
    app = serve(REDIS_URL=valkey.url, WEB_CONCURRENCY="1", MAX_BLOCKED_CLIENTS="1")
    first = ask(app, f"/api/queue/{name}/pop?wait=60")
    until(lambda: waiters(app, name) == 1)
    second = ask(app, f"/api/queue/{name}/reserve?wait=60").getresponse()
    assert (second.status, second.headers["Retry-After"]) == (429, "1")
    assert json.loads(second.read())["error"] == "too_many_blocked_clients"
    assert call(app, f"/api/queue/{name}/pop")[1]["error"] == "empty"
    first.close()
    until(lambda: waiters(app, name) == 0)
    assert call(app, f"/api/queue/{name}/pop?wait=0.1")[1]["error"] == "empty"


@pytest.mark.slow
def test_when_redis_dies_waiting_clients_get_an_error_and_nothing_is_taken(
    own_store: Callable[..., Store], serve: Callable[..., App], name: str
) -> None:
    store = own_store("valkey", "--appendonly", "yes")
    app = serve(REDIS_URL=store.url, WEB_CONCURRENCY="1")
    asked = [ask(app, f"/api/queue/{name}/{operation}?wait=60") for operation in ("pop", "reserve")]
    until(lambda: waiters(app, name) == 2)
    store.end(signal.SIGKILL)
    for one in asked:
        status, found = answer(one)
        assert (status, found["success"], found["error"]) == (503, False, "redis_unavailable")
    assert call(app, f"/api/queue/{name}/pop?wait=60")[0] == 503
    store.start()
    store.client().lpush(f"queue:{name}", "a")
    assert call(app, f"/api/queue/{name}/pop?wait=60")[1] == {"success": True, "message": "a"}


@pytest.mark.slow
def test_the_reported_waiters_of_a_killed_worker_expire(serve: Callable[..., App], valkey: Store, name: str) -> None:
    app = serve(REDIS_URL=valkey.url, WEB_CONCURRENCY="1")
    asked = ask(app, f"/api/queue/{name}/pop?wait=60")
    until(lambda: waiters(app, name) == 1)
    [worker] = app.workers()
    os.kill(worker, signal.SIGKILL)
    with pytest.raises(ConnectionError):
        asked.getresponse()
    client, key = valkey.client(), f"{{queue:{name}}}:waiters"
    [(process, report)] = client.hgetall(key).items()
    number, valid = map(int, report.split(b":"))
    seconds = valid / 1000 - client.time()[0]
    assert number == 1
    assert seconds <= 31
    assert client.ttl(key) <= 60
    client.hset(key, process, f"1:{client.time()[0] * 1000 - 1}")
    until(lambda: [pid for pid in app.workers() if pid != worker])
    assert waiters(app, name) == 0
