"""Commands of concurrent callers share a write. Each gets its own reply or its own error; nothing is sent twice."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
import redis

from broker.connections import batching
from broker.connections.connection import connect
from broker.connections.errors import NotSent
from broker.queue import ReliableQueue
from tests.servers import Proxy, Scripted, Store, until

THREADS = 24


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as pool:
        yield pool


def until_queued(client: Any, count: int) -> None:
    """Wait until `count` commands are queued behind the one in flight."""
    until(lambda: len(client._queue) == count + 1)


def queue_commands(
    proxy: Proxy, client: Any, threads: ThreadPoolExecutor, commands: Sequence[Callable[[], Any]]
) -> list[Future[Any]]:
    """Send commands while another one is in flight, so that they share the next write."""
    client.llen("before")
    proxy.pause()
    first = threads.submit(client.llen, "before")
    until_queued(client, 0)
    futures = []
    for number, command in enumerate(commands):
        futures.append(threads.submit(command))
        until_queued(client, number + 1)
    return [first, *futures]


def test_each_caller_gets_its_own_replies(valkey: Store, threads: ThreadPoolExecutor, name: str) -> None:
    client = connect(valkey.url)

    def work(number: int) -> list[bytes]:
        queue = ReliableQueue(client, f"{name}.{number}")
        for at in range(100):
            assert queue.push(b"%d-%d" % (number, at)) == at + 1
        return [message for _ in range(100) for message in queue.pop()]

    for number, found in enumerate(threads.map(work, range(THREADS))):
        assert found == [b"%d-%d" % (number, at) for at in range(100)]


def test_commands_that_come_meanwhile_share_one_write(proxy: Proxy, threads: ThreadPoolExecutor, name: str) -> None:
    client = connect(proxy.url)
    commands = [partial(client.lpush, f"{name}.{number % 3}", "x") for number in range(9)]
    futures = queue_commands(proxy, client, threads, commands)
    sent = []
    send = batching.BatchingClient._exchange

    def count(self: Any, batch: list[Any]) -> None:
        sent.append(len(batch))
        send(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching.BatchingClient, "_exchange", count)
        proxy.resume()
        assert [future.result(10) for future in futures[1:]] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert sent == [9]


def test_each_caller_gets_its_own_error(proxy: Proxy, threads: ThreadPoolExecutor, name: str) -> None:
    client = connect(proxy.url)
    client.set(f"{name}.text", "x")
    wrong = [lambda: client.lpush(f"{name}.text", "x"), lambda: client.evalsha("0" * 40, 0)]
    right = [lambda: client.lpush(f"{name}.list", "x"), lambda: client.llen(f"{name}.list")]
    futures = queue_commands(proxy, client, threads, [wrong[0], right[0], wrong[1], right[1]])[1:]
    proxy.resume()
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        futures[0].result(10)
    with pytest.raises(redis.exceptions.NoScriptError):
        futures[2].result(10)
    assert (futures[1].result(10), futures[3].result(10)) == (1, 1)


def test_after_a_lost_reply_the_other_outcomes_are_unknown_and_nothing_is_sent_again(
    proxy: Proxy, threads: ThreadPoolExecutor, name: str
) -> None:
    client = connect(proxy.url)
    futures = queue_commands(proxy, client, threads, [partial(client.lpush, f"{name}.{at}", "x") for at in range(5)])
    proxy.cut("LPUSH", skip=2)
    before = proxy.commands.count("LPUSH")
    proxy.resume()
    errors = [future.exception(10) for future in futures[1:]]
    for error in errors[2:]:
        assert isinstance(error, (redis.ConnectionError, redis.TimeoutError)) and not isinstance(error, NotSent)
    assert proxy.commands.count("LPUSH") - before <= 5
    assert all(client.llen(f"{name}.{at}") <= 1 for at in range(5))


def test_a_refusal_that_ends_the_connection_belongs_to_one_caller(
    scripted: Callable[..., Scripted], threads: ThreadPoolExecutor
) -> None:
    client: Any = connect(scripted(b"-LOADING Redis is loading the dataset in memory\r\n").url)
    batch = [batching._Call(batching.pack(("LLEN", "a"))) for _ in range(2)]
    client._execute(batch)
    assert isinstance(batch[0].error, redis.BusyLoadingError)
    assert type(batch[1].error) is redis.ConnectionError  # it may have been done


def test_without_a_server_no_command_is_sent(threads: ThreadPoolExecutor, proxy: Proxy) -> None:
    client = connect(proxy.url)
    futures = queue_commands(proxy, client, threads, [lambda: client.llen("a"), lambda: client.lpush("a", "x")])
    proxy.refuse()
    proxy.resume()
    for future in futures[1:]:
        with pytest.raises(NotSent):
            future.result(20)


def test_a_command_that_was_queued_too_long_is_not_sent(
    proxy: Proxy, threads: ThreadPoolExecutor, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(proxy.url)
    monkeypatch.setattr(batching, "BREAKER_TIMEOUT", 0.01)
    futures = queue_commands(proxy, client, threads, [lambda: client.lpush(name, "x"), lambda: client.lpush(name, "y")])
    until(lambda: all(call.checks >= batching.MAX_QUEUE_CHECKS for call in list(client._queue)[1:]))
    proxy.resume()
    for future in futures[1:]:
        with pytest.raises(redis.MaxConnectionsError):
            future.result(10)
    monkeypatch.undo()
    assert client.llen(name) == 0


@pytest.mark.parametrize("size", [batching.MAX_COMMAND_BYTES, 1 << 20])
def test_commands_of_any_size_are_executed(valkey: Store, threads: ThreadPoolExecutor, name: str, size: int) -> None:
    client = connect(valkey.url)
    lengths = list(threads.map(lambda _: client.lpush(name, b"x" * size), range(THREADS)))
    assert sorted(lengths) == list(range(1, THREADS + 1))
    assert set(client.lrange(name, 0, -1)) == {b"x" * size}
