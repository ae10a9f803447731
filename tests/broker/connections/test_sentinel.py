"""Every new connection leads to the primary that the Sentinels name, and nothing is sent twice."""

from collections.abc import Callable

import pytest
import redis

from broker.connections.connection import connect
from broker.connections.errors import NotSent
from broker.queue import ReliableQueue
from tests.engines import SentinelSet
from tests.servers import Proxy, Scripted, Store
from web.errors import from_redis

Sentinel = Callable[..., Scripted]


def naming(port: int) -> bytes:
    """Return the reply of a Sentinel: the primary is on a port of this machine."""
    return b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%d\r\n" % (len(str(port)), port)


def at(*sentinels: Scripted) -> str:
    hosts = ",".join(sentinel.url.removeprefix("redis://").removesuffix("/0") for sentinel in sentinels)
    return f"redis+sentinel://{hosts}/main"


def test_sentinels_are_asked_until_one_knows_the_primary(scripted: Sentinel, valkey: Store, name: str) -> None:
    unavailable, ignorant, knowing = scripted(b""), scripted(b"*-1\r\n"), scripted(naming(valkey.port))
    unavailable.end()
    queue = ReliableQueue(connect(at(unavailable, ignorant, knowing)), name)
    assert queue.push(b"a") == 1
    assert ignorant.commands.count("SENTINEL") == 1
    queue.client.connection_pool.disconnect()
    assert queue.push(b"b") == 2
    assert ignorant.commands.count("SENTINEL") == 1  # the one that knew it is asked first from now on


def test_nothing_is_sent_twice(scripted: Sentinel, proxy: Proxy, name: str) -> None:
    queue = ReliableQueue(connect(at(scripted(naming(proxy.port)))), name)
    proxy.cut("LPUSH")
    with pytest.raises(redis.ConnectionError) as raised:
        queue.push(b"a")
    assert from_redis(raised.value).error == "outcome_unknown"
    assert proxy.commands.count("LPUSH") == 1


def test_after_a_refusal_the_sentinels_are_asked_again(scripted: Sentinel, valkey: Store, name: str) -> None:
    demoted = scripted(b"-READONLY You can't write against a read only replica.\r\n")
    sentinel = scripted(naming(int(demoted.url[:-2].rpartition(":")[2])))
    queue = ReliableQueue(connect(at(sentinel)), name)
    with pytest.raises(redis.ReadOnlyError):
        queue.push(b"a")
    sentinel.reply = naming(valkey.port)
    assert queue.push(b"a") == 1


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"*-1\r\n", "redis_unavailable"),
        (b"-ERR unknown command 'SENTINEL'\r\n", "redis_unavailable"),
        (b"-NOAUTH Authentication required.\r\n", "redis_misconfigured"),
    ],
)
def test_without_a_primary_nothing_is_sent(scripted: Sentinel, name: str, reply: bytes, error: str) -> None:
    queue = ReliableQueue(connect(at(scripted(reply))), name)
    with pytest.raises(redis.ConnectionError) as raised:
        queue.push(b"a")
    assert from_redis(raised.value).error == error
    assert error != "redis_unavailable" or isinstance(raised.value, NotSent)


def test_the_sentinels_have_a_password_of_their_own(sentinels: SentinelSet, name: str) -> None:
    wrong = sentinels.url.replace("-of-sentinels", "")
    with pytest.raises(redis.AuthenticationError) as raised:
        ReliableQueue(connect(wrong), name).push(b"a")
    assert from_redis(raised.value).error == "redis_misconfigured"
