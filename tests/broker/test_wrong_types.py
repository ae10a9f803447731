"""Keys of a wrong type: a verb that fails because of one has changed nothing, and loses nothing."""

import itertools
from typing import Any

import pytest
import redis

from broker.keys import SCRIPT_KEYS
from broker.models import LeaseExpired, NotFound
from broker.queue import ReliableQueue
from tests.broker.helpers import counts, dead_letters, each_verb, end_leases, reserve
from web.errors import from_redis

KEYS = ["list", *SCRIPT_KEYS]


def damage(queue: ReliableQueue, key: str) -> str:
    """Store a value of the wrong type under one of the queue's keys, and return that key."""
    damaged = dict(zip(KEYS, queue._keys, strict=True))[key]
    queue.client.delete(damaged)
    queue.client.set(damaged, "a string")
    return damaged


@pytest.mark.parametrize("key", [key for key in KEYS[1:] if key != "clock"])  # that one is a string
def test_a_verb_that_fails_has_taken_nothing(backend: Any, name: str, key: str) -> None:
    for number, verb in enumerate(each_verb(ReliableQueue(None))):
        queue = ReliableQueue(backend, f"{name}.{number}")
        queue.push(b"a", b"b", b"c")
        wrong = damage(queue, key)
        try:
            each_verb(queue)[verb]()
        except (redis.ResponseError, LeaseExpired, NotFound):
            assert queue.client.lrange(queue.key, 0, -1) == [b"c", b"b", b"a"], verb
            assert not any(queue.client.exists(other) for other in queue._keys[1:] if other != wrong), verb
        assert queue.client.get(wrong) == b"a string", verb


@pytest.mark.parametrize(
    "key",
    [key for key in KEYS if key not in ("reserved", "bodies")],
)
def test_a_verb_that_fails_loses_no_reserved_message(backend: Any, name: str, key: str) -> None:
    cases = itertools.product(each_verb(ReliableQueue(None)), (True, False), (1, 5))
    for number, (verb, ended, max_deliveries) in enumerate(cases):
        queue = ReliableQueue(backend, f"{name}.{number}", max_deliveries=max_deliveries)
        queue.push(b"a", b"b")
        one, _ = reserve(queue, 2)
        wrong = damage(queue, key)
        if ended:
            end_leases(queue)
        try:
            each_verb(queue, one.id)[verb]()
        except (redis.ResponseError, LeaseExpired, NotFound):
            queue.client.delete(wrong)
            queue.state()
            end_leases(queue)
            queue.state()
            assert sorted(queue.all() + dead_letters(queue).all()) == [b"a", b"b"], (verb, ended, max_deliveries)


def test_a_release_that_cannot_bury_one_message_releases_none(backend: Any, name: str) -> None:
    queue = ReliableQueue(backend, name, max_deliveries=2)
    queue.push(b"a", b"b")
    queue.release(reserve(queue)[0].id)
    last, first = reserve(queue, 2)
    assert (last.deliveries, first.deliveries) == (2, 1)
    wrong = damage(queue, "dead")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        queue.release(last.id, first.id)
    assert queue.all() == []
    queue.client.delete(wrong)
    assert counts(queue) == (0, 2, 0)


def test_a_move_into_something_other_than_a_list_moves_nothing(queue: ReliableQueue) -> None:
    queue.push(b"a")
    queue.client.set("queue:" + queue.name + "x", "text")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        queue.move(queue.name + "x", 1)
    assert queue.all() == [b"a"]


def test_a_queue_that_is_not_a_list_is_reported_as_a_wrong_type(queue: ReliableQueue) -> None:
    queue.client.set(queue.key, "text")
    for verb in ("pop", "reserve", "remove", "clear", "state"):
        with pytest.raises(redis.ResponseError) as caught:
            each_verb(queue)[verb]()
        assert (from_redis(caught.value).status, from_redis(caught.value).error) == (409, "wrong_type"), verb
