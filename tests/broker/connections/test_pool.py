"""The connection pool is fair and leaks no permit, and a failed connect names the server.

Lost replies are tested in tests/test_redis_queue.py.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from broker.connections import pool
from broker.connections.connection import MAX_CONNECTIONS, connect
from broker.connections.errors import NotSent
from tests.servers import Proxy, Store


def ping_at_once(client: Any, count: int) -> list[str]:
    """Send `count` pings at once; return "pong" or the name of the error for each."""

    def ping(_: int) -> str:
        try:
            client.ping()
        except redis.RedisError as error:
            return type(error).__name__
        return "pong"

    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(ping, range(count)))


def test_more_commands_than_connections_wait_for_a_free_one(valkey: Store) -> None:
    client = connect(valkey.url)
    assert ping_at_once(client, 5 * MAX_CONNECTIONS) == ["pong"] * 5 * MAX_CONNECTIONS


def test_an_outage_leaks_no_permit(proxy: Proxy) -> None:
    client = connect(proxy.url)
    proxy.refuse()
    assert set(ping_at_once(client, 4 * MAX_CONNECTIONS)) == {"NotSent"}
    proxy.accept()
    for _ in range(3):
        assert ping_at_once(client, 4 * MAX_CONNECTIONS) == ["pong"] * 4 * MAX_CONNECTIONS
    assert not client.connection_pool._permits


def test_a_command_that_gets_no_connection_in_time_fails(valkey: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "BREAKER_TIMEOUT", 0.01)
    client = connect(valkey.url)
    held = [client.connection_pool.get_connection() for _ in range(MAX_CONNECTIONS)]
    with pytest.raises(redis.MaxConnectionsError):
        client.ping()
    for each in held:
        client.connection_pool.release(each)
    assert client.ping()


def test_a_blocking_command_can_last_longer_than_the_timeout_in_the_url(valkey: Store, name: str) -> None:
    client: Any = connect(valkey.url + "?socket_timeout=0.1", blocking=True)
    assert client.blmove(name, name, 0.3, "RIGHT", "RIGHT") is None


@pytest.mark.parametrize(
    ("url", "server", "reason"),
    [
        ("redis://:s3cr3t@127.0.0.1:1", "127.0.0.1:1", "connection refused"),
        ("redis+cluster://:s3cr3t@127.0.0.1:1", "127.0.0.1:1", "connection refused"),
        ("redis+sentinel://:s3cr3t@127.0.0.1:1/main", "", "no Sentinel knows a primary of main"),
        ("unix://:s3cr3t@/nowhere.sock", "/nowhere.sock", "no such file or directory"),
    ],
)
def test_an_unreachable_server_is_named_with_the_reason(url: str, server: str, reason: str) -> None:
    with pytest.raises(NotSent) as raised:
        connect(url).llen("a")
    assert (raised.value.server, raised.value.reason) == (server, reason)
    assert "s3cr3t" not in str(raised.value)


def test_a_server_that_does_not_reply_to_a_connect_has_timed_out(proxy: Proxy) -> None:
    proxy.pause()
    with pytest.raises(NotSent) as raised:
        connect(proxy.url + "?socket_timeout=0.1").llen("a")
    assert (raised.value.server, raised.value.reason) == (f"127.0.0.1:{proxy.port}", "timed out")
