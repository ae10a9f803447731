"""A server that accepts commands without replying gets no more of them until it responds again."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from broker.connections import batching
from broker.connections.circuit_breaker import BREAKER_TIMEOUT, CircuitBreaker
from broker.connections.connection import MAX_CONNECTIONS, connect
from broker.connections.errors import NotSent
from broker.connections.health import check_server
from tests.broker.connections.networks import Forgetful
from tests.servers import Store, running, until

Stores = Callable[..., Store]


def outcome(command: Callable[[], Any]) -> str:
    """Return the name of a command's error, "done" without one."""
    try:
        command()
    except redis.RedisError as error:
        return type(error).__name__
    return "done"


@pytest.mark.slow
def test_a_server_that_hangs_gets_no_further_commands(
    own_store: Stores, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = own_store("valkey")
    client = connect(store.url + "?socket_timeout=2.5")

    def push(text: str) -> str:
        return outcome(lambda: client.lpush(name, text))

    def push_alone(text: str) -> str:
        return outcome(lambda: client.lpush(name, text + "x" * 20_000))

    def push_together(text: str) -> str:
        with client.pipeline() as pipeline:
            pipeline.lpush(name, text)
            return outcome(pipeline.execute)

    assert push("before") == "done"
    with store.stopped(), ThreadPoolExecutor(4 * MAX_CONNECTIONS) as threads:
        first = threads.submit(push, "first")
        until(client.breaker.is_open)
        monkeypatch.setattr(client, "_run", pytest.fail)  # they are not even queued behind the first
        later = [threads.submit(kind, "later") for kind in (push, push_alone, push_together) * 10]
        assert {one.result() for one in later} == {"NotSent"}
        assert first.result() == "TimeoutError"
        assert push("still") == "NotSent"
        assert outcome(lambda: check_server(client)) == "NotSent"
    monkeypatch.undo()
    assert push("after") == "done"
    assert outcome(lambda: check_server(client)) == "done"
    until(lambda: client.llen(name) == 3)
    assert sorted(client.lrange(name, 0, -1)) == [b"after", b"before", b"first"]
    assert not client.connection_pool._permits


@pytest.mark.slow
def test_commands_that_are_waiting_when_a_server_hangs_are_not_sent(
    own_store: Stores, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wait in the queue of small commands, and for a connection."""
    monkeypatch.setattr(batching, "MAX_QUEUE_CHECKS", 2)  # it would be another reason
    store = own_store("valkey")
    client = connect(store.url + "?socket_timeout=4")
    assert client.ping()

    def push(text: str) -> str:
        return outcome(lambda: client.lpush(name, text))

    with store.stopped(), ThreadPoolExecutor(4 * MAX_CONNECTIONS) as threads:
        small = [threads.submit(push, "small") for _ in range(10)]
        large = [threads.submit(push, "x" * 20_000) for _ in range(2 * MAX_CONNECTIONS)]
        outcomes = [one.result() for one in small + large]
    assert set(outcomes) == {"NotSent", "TimeoutError"}
    assert outcomes.count("NotSent") >= 10 + MAX_CONNECTIONS - 1
    until(lambda: push("after") == "done")
    until(lambda: client.llen(name) == 1 + len(outcomes) - outcomes.count("NotSent"))


@pytest.mark.slow
def test_a_health_check_finds_a_server_that_hangs(own_store: Stores, name: str) -> None:
    store = own_store("valkey")
    client = connect(store.url)
    assert outcome(lambda: check_server(client)) == "done"
    with store.stopped():
        assert outcome(lambda: check_server(client)) == "NotSent"
        assert outcome(lambda: client.lpush(name, "a")) == "NotSent"
    assert client.lpush(name, "b") == 1


@pytest.mark.slow
def test_one_lost_connection_leaves_the_circuit_closed(valkey: Store, name: str) -> None:
    """The commands queued behind the lost one are executed once it has timed out."""
    with running(Forgetful(valkey.port)) as network:
        client = connect(network.url + "?socket_timeout=2.5")
        assert client.lpush(name, "a") == 1
        network.forget()
        with ThreadPoolExecutor(1) as threads:
            lost = threads.submit(outcome, lambda: client.lpush(name, "lost"))
            until(client.breaker.is_open)
            assert client.lpush(name, "b") == 2
            assert lost.result() == "TimeoutError"


def test_the_outcome_of_any_command_opens_or_closes_the_circuit(own_store: Stores, name: str) -> None:
    store = own_store("valkey")
    client = connect(store.url + "?socket_timeout=0.2")
    with store.stopped():
        assert outcome(lambda: client.get(name)) in ("TimeoutError", "NotSent")
        assert client.breaker.is_open()
    connection = client.connection_pool.connection_class(**client.connection_pool.connection_kwargs)
    until(lambda: outcome(connection.connect) == "done")
    client.connection_pool.release(connection)
    assert not client.breaker.is_open()


@pytest.mark.slow
def test_a_blocking_command_holds_up_nobody(valkey: Store, name: str) -> None:
    client = connect(valkey.url)
    with ThreadPoolExecutor(1) as threads:
        blocked = threads.submit(client.execute_command, "BLPOP", name, 0)
        until(client.breaker.is_open)
        assert client.lpush(f"{name}-other", "a") == 1
        assert not client.breaker.is_open()
        client.lpush(name, "b")
        assert blocked.result() == (name.encode(), b"b")


class Server:
    """Raises `error` for a ping, if there is one, and counts pings."""

    def __init__(self, *sent: float) -> None:
        self.sent, self.pings = sent, 0
        self.error: redis.RedisError | None = None
        self.breaker = CircuitBreaker(self)

    def sent_times(self) -> tuple[float, ...]:
        return self.sent

    def ping(self, timeout: float) -> None:
        assert 0 < timeout <= BREAKER_TIMEOUT
        self.pings += 1
        if self.error:
            raise self.error

    def check(self) -> None:
        self.breaker.check()


@pytest.mark.parametrize("sent", [(), (0.0,), (time.monotonic() + 1000,)], ids=["none", "replied", "just now"])
def test_a_server_is_not_probed_before_a_reply_is_late(sent: tuple[float, ...]) -> None:
    server = Server(*sent)
    server.check()
    assert server.pings == 0


def test_a_late_server_is_probed_once_and_trusted_if_it_replies() -> None:
    server = Server(0.0, time.monotonic() - 2 * BREAKER_TIMEOUT)
    server.check()
    server.check()
    assert server.pings == 1


def test_a_reply_to_any_other_command_closes_the_circuit() -> None:
    server = Server(time.monotonic() - 2 * BREAKER_TIMEOUT)
    server.breaker.trip()
    server.breaker.record_success()
    server.check()
    assert server.pings == 0


def test_a_silent_server_is_probed_for_each_command_until_it_replies() -> None:
    server = Server()
    server.breaker.trip()
    server.error = redis.TimeoutError()
    for _ in range(2):
        with pytest.raises(NotSent):
            server.check()
    assert server.pings == 2
    server.error = None
    server.check()
    assert not server.breaker.is_open()


def test_a_server_that_refuses_closes_the_circuit() -> None:
    for error in (redis.ConnectionError("refused"), redis.AuthenticationError(), redis.ResponseError("LOADING")):
        server = Server()
        server.breaker.trip()
        server.error = error
        server.check()
        assert not server.breaker.is_open()
