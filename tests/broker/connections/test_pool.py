"""The client: its pool serves commands in the order they came, and loses no slot. What a lost reply does is tested in
tests/test_redis_queue.py."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from broker.connections import connection
from broker.connections.connection import MAX_CONNECTIONS, connect
from tests.servers import Proxy, Store


def ping_at_once(client: Any, number: int) -> list[str]:
    """Send so many pings at once; return "pong" or the name of the error for each."""

    def ping(_: int) -> str:
        try:
            client.ping()
        except redis.RedisError as error:
            return type(error).__name__
        return "pong"

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(ping, range(number)))


def test_more_commands_than_connections_wait_for_a_free_one(valkey: Store) -> None:
    client = connect(valkey.url)
    assert ping_at_once(client, 5 * MAX_CONNECTIONS) == ["pong"] * 5 * MAX_CONNECTIONS


def test_an_outage_leaves_all_slots_free(proxy: Proxy) -> None:
    client = connect(proxy.url)
    proxy.refuse()
    assert set(ping_at_once(client, 4 * MAX_CONNECTIONS)) == {"NotSent"}
    proxy.accept()
    for _ in range(3):
        assert ping_at_once(client, 4 * MAX_CONNECTIONS) == ["pong"] * 4 * MAX_CONNECTIONS
    assert isinstance(client.connection_pool, connection._FairPool)
    assert client.connection_pool._free_slots == MAX_CONNECTIONS


def test_a_command_that_gets_no_connection_fails(valkey: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "SLOT_TIMEOUT", 0.05)
    client = connect(valkey.url)
    held = [client.connection_pool.get_connection() for _ in range(MAX_CONNECTIONS)]
    with pytest.raises(redis.MaxConnectionsError):
        client.ping()
    for each in held:
        client.connection_pool.release(each)
    assert client.ping()


def test_a_wait_may_be_longer_than_the_timeout_in_the_url(valkey: Store, name: str) -> None:
    client: Any = connect(valkey.url + "?socket_timeout=0.1", blocking=True)
    assert client.blmove(name, name, 0.3, "RIGHT", "RIGHT") is None
