"""Idle connections are closed and not used again, so they leave room for other clients."""

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import redis

from broker.connections import pool as fair_pool
from broker.connections.connection import MAX_BLOCKED_CONNECTIONS, connect
from broker.queue import ReliableQueue
from tests.broker.connections.networks import Forgetful
from tests.ledger import Api
from tests.servers import App, Store, running, until
from tests.web.live.fakes import FakeClient, long_poll_on

MAX_CLIENTS = 100

OTHERS = ["pop", "reserve", "count"]


@pytest.fixture
def network(valkey: Store) -> Iterator[Forgetful]:
    with running(Forgetful(valkey.port)) as made:
        yield made


def ages(store: Store, label: str) -> list[int]:
    """Return the idle seconds of each connection with this name."""
    return [int(client["idle"]) for client in store.client().client_list() if client["name"] == label]


# --- closing


@pytest.mark.parametrize("blocking", [False, True])
def test_an_idle_connection_is_closed_without_a_further_command(
    valkey: Store, name: str, monkeypatch: pytest.MonkeyPatch, blocking: bool
) -> None:
    monkeypatch.setattr(fair_pool, "IDLE_TIMEOUT", 0.1)
    monkeypatch.setattr(fair_pool, "CLOSE_INTERVAL", 0.05)
    client = connect(f"{valkey.url}?client_name={name}", blocking=blocking)
    for _ in range(2):
        with ThreadPoolExecutor(5) as pool:
            list(pool.map(lambda number: client.blpop([f"{name}-{number}"], 0.1), range(5)))
        until(lambda: not ages(valkey, name))


def test_a_connection_in_use_stays_open(valkey: Store, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_pool, "IDLE_TIMEOUT", 2.0)
    monkeypatch.setattr(fair_pool, "CLOSE_INTERVAL", 0.01)
    client: Any = connect(valkey.url)
    number, end = client.client_id(), time.monotonic() + 0.5
    while time.monotonic() < end:
        assert client.client_id() == number


def test_the_connections_of_a_garbage_collected_client_are_closed_at_once(valkey: Store, name: str) -> None:
    connect(f"{valkey.url}?client_name={name}").ping()
    until(lambda: not ages(valkey, name), fair_pool.CLOSE_INTERVAL / 2)


# --- a network that forgets idle connections


def test_an_idle_connection_is_not_used_again(network: Forgetful, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fair_pool, "IDLE_TIMEOUT", 0.1)
    monkeypatch.setattr(fair_pool, "CLOSE_INTERVAL", 60.0)  # the check before use must be enough
    queue = ReliableQueue(connect(network.url), name)
    queue.push(b"a")
    for text in (b"b", b"c"):
        network.forget()
        [idle] = queue.client.connection_pool._available_connections
        until(partial(was_idle, idle))
        queue.push(text)
    assert queue.all() == [b"a", b"b", b"c"]


def was_idle(idle: Any) -> bool:
    return bool(time.monotonic() - idle.idle_since > fair_pool.IDLE_TIMEOUT)


@pytest.mark.slow
@pytest.mark.parametrize("operation", ["push", *(pytest.param(each, marks=pytest.mark.soak) for each in OTHERS)])
def test_after_a_pause_the_app_answers_at_once(
    network: Forgetful, valkey: Store, serve: Callable[..., App], name: str, operation: str
) -> None:
    app = serve(REDIS_URL=network.url + f"?client_name={name}", WEB_CONCURRENCY="1")
    api, raw = Api(app.url, name), ReliableQueue(valkey.client(), name)
    with ThreadPoolExecutor(8) as pool:  # several connections
        list(pool.map(lambda _: Api(app.url, name).call("push", message="a"), range(8)))
    network.forget()
    until(lambda: min(ages(valkey, name), default=99) > fair_pool.IDLE_TIMEOUT)
    started = time.monotonic()
    status, answer = api.call(operation, message="b") if operation == "push" else api.call(operation)
    assert (status, answer["success"]) == (200, True)
    assert time.monotonic() - started < 4
    assert raw.count() == {"push": 9, "count": 8}.get(operation, 7)


# --- many blocked clients


@contextlib.contextmanager
def waiting(app: App, names: list[str], seconds: float) -> Iterator[list[http.client.HTTPConnection]]:
    """Long-poll each of the queues with one client."""
    clients = []
    try:
        for name in names:
            clients.append(http.client.HTTPConnection("127.0.0.1", app.port, timeout=60))
            clients[-1].request("POST", f"/api/queue/{name}/pop?wait={seconds}", headers={"Content-Length": "0"})
        yield clients
    finally:
        for client in clients:
            client.close()


def answer(client: http.client.HTTPConnection) -> tuple[int, Any]:
    response = client.getresponse()
    return response.status, json.loads(response.read())


@pytest.mark.soak
@pytest.mark.slow
def test_long_polls_on_many_queues_leave_room_for_other_clients(
    own_store: Callable[..., Store], serve: Callable[..., App], name: str
) -> None:
    store = own_store("valkey", "--maxclients", str(MAX_CLIENTS))
    app = serve(REDIS_URL=store.url)
    names = [f"{name}-{number}" for number in range(300)]
    raw = store.client()
    with waiting(app, names, 50) as clients:
        until(lambda: sum(int(ReliableQueue(raw, each).state().counts.waiters) for each in names[:100]) == 100, 60)
        others = [store.client() for _ in range(10)]  # other clients can still connect
        assert all(other.ping() for other in others)
        assert len(raw.client_list()) < MAX_CLIENTS - 10
        for each in names:
            raw.lpush(f"queue:{each}", each)
        assert [answer(client) for client in clients] == [(200, {"success": True, "message": each}) for each in names]
        del others
    until(lambda: len(raw.client_list()) < 10)


@pytest.mark.slow
def test_a_long_poll_is_served_even_if_redis_accepts_no_more_connections(
    own_store: Callable[..., Store], name: str
) -> None:
    store = own_store("valkey")
    raw, client = store.client(), connect(store.url)
    queue = ReliableQueue(client, name)
    held = [client.connection_pool.get_connection() for _ in range(3)]  # to pop with, and to report waiters with
    for each in held:
        client.connection_pool.release(each)
    raw.config_set("maxclients", len(raw.client_list()))
    process = long_poll_on(client, connect(store.url, blocking=True))
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(process.take, [queue], 20, lambda queue: queue.pop_batch(), None, FakeClient())
        until(lambda: queue.state().counts.waiters == 1)
        raw.lpush(queue.key, "a")
        assert taken.result()[1].messages == [b"a"]


def test_blocked_connections_are_limited_and_the_next_is_refused_at_once(valkey: Store, name: str) -> None:
    client = connect(f"{valkey.url}?client_name={name}", blocking=True)
    with ThreadPoolExecutor(MAX_BLOCKED_CONNECTIONS) as pool:
        blocked = [pool.submit(client.blpop, [name], 20) for _ in range(MAX_BLOCKED_CONNECTIONS)]
        until(lambda: len(ages(valkey, name)) == MAX_BLOCKED_CONNECTIONS)
        with pytest.raises(redis.MaxConnectionsError):
            client.blpop([name], 20)
        valkey.client().lpush(name, *range(MAX_BLOCKED_CONNECTIONS))
        assert all(each.result() for each in blocked)


def test_the_kernel_keeps_connections_alive(valkey: Store) -> None:
    client: Any = connect(valkey.url)
    made = client.connection_pool.get_connection()
    assert made._sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    client.connection_pool.release(made)
