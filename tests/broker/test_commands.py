"""The commands that reach Redis: one an operation, none sent twice, and scripts that every server accepts."""

import re
import time
from collections.abc import Callable

import pytest
import redis

from broker.connections.connection import connect
from broker.queue import ReliableQueue
from tests.broker.helpers import each_operation, reserve, use_every_operation
from tests.servers import Proxy, Scripted, Store
from web.errors import from_redis


@pytest.mark.parametrize("server", ["valkey", "redis7"])
def test_each_operation_is_one_command_and_none_is_sent_twice(
    server: str, request: pytest.FixtureRequest, name: str
) -> None:
    store: Store = request.getfixturevalue(server)
    known = ReliableQueue(store.client(), name + "known")
    use_every_operation(known)
    known.pop()  # the server knows the scripts from now on
    proxy = Proxy(store.port)
    queue = ReliableQueue(connect(proxy.url), name)
    queue.push(b"a", b"b")
    [delivery] = reserve(queue)
    queue.ack(delivery.id)
    queue.pop()
    queue.state()
    # Popping one message takes a second command only if something is reserved, delayed, paused or remembered.
    assert proxy.commands == ["LPUSH", "EVALSHA", "EVALSHA", "EVALSHA", "EVALSHA"]
    proxy.commands.clear()
    for operation in ("pop", "pop once", "reserve", "clear", "move", "state"):
        proxy.cut("EVALSHA")
        with pytest.raises(redis.ConnectionError) as caught:
            each_operation(queue)[operation]()
        assert from_redis(caught.value).error == "outcome_unknown", operation
    assert proxy.commands == ["EVALSHA"] * 6
    proxy.end()


COSTS = {"push once": 11, "pop": 9, "reserve": 11, "ack": 8, "release": 26, "extend": 6}
COSTS["state"] = 14  # one of them for each head


@pytest.mark.parametrize("operation", COSTS)
def test_a_script_runs_no_more_commands_than_it_needs(valkey: Store, name: str, operation: str) -> None:
    """All clients wait for each of them: Redis has one thread. Some calls tidy up as well, so the shortest counts."""
    queue, client = ReliableQueue(valkey.client(), name), valkey.client()
    counts = []
    for _ in range(3):
        queue.push(b"a", b"b", b"c")
        [delivery], [delayed] = reserve(queue), queue.push_later(100, [b"d"]).ids
        inside: list[str] = []
        with client.monitor() as monitor:
            each_operation(queue, delivery.id, delayed)[operation]()
            client.echo("end")
            while not (command := monitor.next_command())["command"].startswith("ECHO"):
                inside += [command["command"]] if command["client_type"] == "lua" else []
        counts.append(len(inside))
    assert 0 < min(counts) <= COSTS[operation], inside


def test_a_script_that_redis_forgot_is_sent_again(valkey: Store, name: str) -> None:
    queue = ReliableQueue(valkey.client(), name)
    queue.push(b"a", b"b")
    queue.pop()
    queue.client.script_flush()
    assert queue.pop() == [b"b"]
    assert queue.push_once("key", [b"c"]).count == 1


def test_an_old_redis_is_reported_as_too_old(scripted: Callable[..., Scripted], name: str) -> None:
    old = scripted(
        b"-ERR Error compiling script (new function): user_script:1: unexpected symbol near '#'\r\n",
        hello=b"-ERR unknown command `HELLO`\r\n",
    )
    queue = ReliableQueue(connect(old.url), name)
    with pytest.raises(redis.RedisError) as caught:
        queue.reserve()
    error = from_redis(caught.value)
    assert (error.status, error.error) == (503, "redis_too_old")
    assert "6.2" in error.message


@pytest.mark.parametrize("server", ["valkey", "redis7"])
def test_ids_and_times_are_written_as_whole_numbers(server: str, request: pytest.FixtureRequest, name: str) -> None:
    """Lua writes large numbers as 1.7e+12 unless a format says otherwise."""
    store: Store = request.getfixturevalue(server)
    queue = ReliableQueue(store.client(), name)
    queue.push(b"a")
    [delivery] = reserve(queue)
    queue.report_waiters("process", 3, 30)
    assert abs(int(delivery.id[:16]) / 1e6 - time.time()) < 60
    assert re.fullmatch(rb"3:[0-9]{13}", queue.client.hget(queue.key_prefix + "waiters", "process"))
