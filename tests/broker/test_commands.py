"""The commands that reach Redis: one for each verb, none of them twice, and scripts that every server accepts."""

import re
import time
from collections.abc import Callable

import pytest
import redis

from broker.connections.connection import connect
from broker.queue import ReliableQueue
from tests.broker.helpers import each_verb, reserve, use_every_verb
from tests.servers import Proxy, Scripted, Store
from web.errors import from_redis


@pytest.mark.parametrize("server", ["valkey", "redis7"])
def test_each_verb_is_one_command_and_none_is_sent_twice(
    server: str, request: pytest.FixtureRequest, name: str
) -> None:
    store: Store = request.getfixturevalue(server)
    known = ReliableQueue(store.client(), name + "known")
    use_every_verb(known)
    known.pop()  # the scripts are known from now on
    proxy = Proxy(store.port)
    queue = ReliableQueue(connect(proxy.url), name)
    queue.push(b"a", b"b")
    [delivery] = reserve(queue)
    queue.ack(delivery.id)
    queue.pop()
    queue.count()
    # To pop one message takes a second command where something is known of returned messages.
    assert proxy.commands == ["LPUSH", "EVALSHA", "EVALSHA", "EVALSHA", "LLEN"]
    proxy.commands.clear()
    for verb in ("pop", "pop with a key", "reserve", "clear", "move", "state"):
        proxy.cut("EVALSHA")
        with pytest.raises(redis.ConnectionError) as caught:
            each_verb(queue)[verb]()
        assert from_redis(caught.value).error == "outcome_unknown", verb
    assert proxy.commands == ["EVALSHA"] * 6
    proxy.end()


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
