"""Pushes of more messages than one command should have: all or none, in every way to push, and nothing left behind."""

from collections.abc import Callable
from typing import Any

import pytest
import redis

from broker.bulk_push import MAX_COMMAND_MESSAGES
from broker.connections.connection import connect
from broker.models import Conflict
from broker.queue import ReliableQueue
from tests.broker.helpers import numbered, reserve
from tests.servers import Proxy, Store
from web.errors import from_redis

MANY = numbered(2 * MAX_COMMAND_MESSAGES + 1)
PUSHES: dict[str, Callable[[ReliableQueue], int]] = {
    "push": lambda queue: queue.push(*MANY),
    "front": lambda queue: queue.push(*MANY, front=True),
    "once": lambda queue: queue.push_once("key", MANY).count,
    "front once": lambda queue: queue.push_once("key", MANY, front=True).count,
}
each_push = pytest.mark.parametrize("push", PUSHES.values(), ids=PUSHES)


def keys_of(queue: ReliableQueue) -> set[str]:
    return {key.decode() for key in queue.client.keys(f"*queue:{queue.name}*")}


@each_push
def test_many_keep_their_order(backend: Any, name: str, push: Callable[[ReliableQueue], int]) -> None:
    queue = ReliableQueue(backend, name)
    queue.push(b"old")
    assert push(queue) == len(MANY) + 1
    is_next = queue.all(0, 1) == MANY[:1]
    assert queue.all() == ([*MANY, b"old"] if is_next else [b"old", *MANY])
    assert not any("staged" in key for key in keys_of(queue))


def test_many_are_pushed_once_for_a_key(engine: Any, name: str) -> None:
    queue = ReliableQueue(connect(engine.url), name)
    assert [queue.push_once("key", MANY).count for _ in range(2)] == [len(MANY)] * 2
    with pytest.raises(Conflict):
        queue.push_once("key", MANY[1:])
    queue.push(*MANY)
    queue.push(b"first", *MANY, front=True)
    assert queue.pop() == [b"first"]
    assert queue.count() == 3 * len(MANY)


def test_a_message_that_came_back_keeps_its_deliveries_behind_many(backend: Any, name: str) -> None:
    queue = ReliableQueue(backend, name)
    queue.push(b"a")
    queue.release(reserve(queue)[0].id)
    queue.push(*MANY, front=True)
    for _ in range(3):
        queue.pop(1000)
    assert queue.push(b"a", *MANY[:5]) == 6
    assert [delivery.deliveries for delivery in reserve(queue, 1)] == [1]


@each_push
def test_no_command_has_more_than_a_thousand_messages(
    proxy: Proxy, name: str, push: Callable[[ReliableQueue], int]
) -> None:
    push(ReliableQueue(connect(proxy.url), name))
    assert 1000 < proxy.most_arguments < 1020


@pytest.mark.parametrize("server", ["valkey", "redis", "redis6", "redis8"])
def test_a_server_that_is_full_or_becomes_full_takes_all_or_none(
    own_store: Callable[..., Store], name: str, server: str
) -> None:
    client = own_store(server).client()
    for way, push in PUSHES.items():
        push(ReliableQueue(client, f"{name}-known-{way[:4]}"))  # the server knows the scripts from now on
    for way, push in PUSHES.items():
        for room in (-1_000_000, 5_000, 20_000, 40_000, 80_000, 160_000, 10_000_000):
            queue = ReliableQueue(client, f"{name}-{way.replace(' ', '-')}{room}")
            client.config_set("maxmemory", max(1, client.info("memory")["used_memory"] + room))
            error = ""
            try:
                push(queue)
            except redis.RedisError as rejected:
                error = from_redis(rejected).error
            assert (error, len(queue.all())) in (
                [("redis_full", 0)] if room < 0 else [("redis_full", 0), ("", len(MANY))]
            )
            assert bool(error) is not bool(keys_of(queue)), keys_of(queue)
            assert room < 10_000_000 or not error
            client.config_set("maxmemory", 0)
            assert push(queue) == len(MANY) or not error  # a rejected push leaves its key unused


@pytest.mark.parametrize("before", [True, False], ids=["command lost", "reply lost"])
@each_push
def test_a_broken_connection_leaves_all_or_none(
    proxy: Proxy, valkey: Store, name: str, push: Callable[[ReliableQueue], int], before: bool
) -> None:
    push(ReliableQueue(valkey.client(), name + "-known"))
    proxy.cut("EXEC", before=before)
    with pytest.raises(redis.ConnectionError) as raised:
        push(ReliableQueue(connect(proxy.url), name))
    assert from_redis(raised.value).error == "outcome_unknown"
    queue = ReliableQueue(valkey.client(), name)
    assert queue.count() == (0 if before else len(MANY))
    assert not any("staged" in key for key in keys_of(queue))
    assert proxy.commands.count("EXEC") == (0 if before else 1)


@each_push
def test_a_key_of_another_type_is_left_alone(valkey: Store, name: str, push: Callable[[ReliableQueue], int]) -> None:
    queue = ReliableQueue(valkey.client(), name)
    queue.client.set(queue.key, b"text")
    with pytest.raises(redis.RedisError) as raised:
        push(queue)
    assert from_redis(raised.value).error == "wrong_type"
    assert keys_of(queue) == {queue.key}
