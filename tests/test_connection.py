"""The pool: commands get their turn in the order they came, and no turn is lost or made up."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from broker import connection
from broker.connection import IN_FLIGHT, connect
from tests.servers import Proxy, Store


def burst(client: Any, number: int) -> list[str]:
    """Send pings at once and return how each went."""

    def ping(_: int) -> str:
        try:
            client.ping()
        except redis.RedisError as error:
            return type(error).__name__
        return "pong"

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(ping, range(number)))


def test_more_commands_than_connections_wait_for_their_turn(valkey: Store) -> None:
    client = connect(valkey.url)
    assert burst(client, 5 * IN_FLIGHT) == ["pong"] * 5 * IN_FLIGHT


def test_an_outage_leaves_as_many_turns_as_before(proxy: Proxy) -> None:
    client = connect(proxy.url)
    proxy.refuse()
    assert set(burst(client, 4 * IN_FLIGHT)) == {"NotSent"}
    proxy.accept()
    for _ in range(3):
        assert burst(client, 4 * IN_FLIGHT) == ["pong"] * 4 * IN_FLIGHT
    assert isinstance(client.connection_pool, connection._FairPool)
    assert client.connection_pool._turns == IN_FLIGHT


def test_a_command_that_gets_no_turn_says_so(valkey: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "TIMEOUT", 0.05)
    client = connect(valkey.url + "?socket_timeout=5")
    held = [client.connection_pool.get_connection() for _ in range(IN_FLIGHT)]
    with pytest.raises(redis.MaxConnectionsError):
        client.ping()
    for each in held:
        client.connection_pool.release(each)
    assert client.ping()


def test_a_wait_outlasts_a_short_time_limit_of_the_url(valkey: Store, name: str) -> None:
    client: Any = connect(valkey.url + "?socket_timeout=0.1", blocking=True)
    assert client.blmove(name, name, 0.5, "RIGHT", "RIGHT") is None
