"""The totals that Redis keeps for /metrics, and for how long the same message has been at the head."""

from typing import Any

import pytest

from broker.queue import ReliableQueue
from tests.broker.helpers import dead_letters, end_leases, numbered, reserve, with_one_delivery

HOUR = 3600  # seconds


def is_same_head(queue: ReliableQueue, seconds: float = 500) -> bool:
    """Return whether the same message is still at the head, by moving back the time at which it was first seen."""
    key = queue.key_prefix + "counters"
    since = queue.client.hget(key, "head_since")
    if since:
        queue.client.hset(key, "head_since", int(since) - round(seconds * 1000))
    return queue.stats().head_age >= seconds


def test_an_expired_lease_is_counted_once(queue: ReliableQueue) -> None:
    queue.push(*numbered(3))
    reserve(queue, 3)
    end_leases(queue)
    for _ in range(3):
        assert queue.state().counts.count == 3
    assert (queue.stats().expired, queue.stats().buried) == (3, 0)


def test_a_released_message_has_not_expired(queue: ReliableQueue) -> None:
    queue.push(*numbered(2))
    queue.release(*(delivery.id for delivery in reserve(queue, 2)))
    assert (queue.stats().expired, queue.stats().buried) == (0, 0)


def test_buried_messages_are_counted_however_they_died(queue: ReliableQueue) -> None:
    single = with_one_delivery(queue)
    single.push(*numbered(3))
    reserve(single, 2)
    end_leases(single)
    assert single.state().counts.count == 1
    assert single.release(reserve(single)[0].id) == 1
    stats = queue.stats()
    assert (stats.expired, stats.buried) == (2, 3)
    assert dead_letters(queue).stats().buried == 0


def test_totals_outlive_the_messages(queue: ReliableQueue) -> None:
    queue.push(b"a")
    reserve(queue)
    end_leases(queue)
    queue.pop()
    assert queue.stats().expired == 1


@pytest.mark.parametrize("holds", ["waiting", "reserved", "delayed", "dead", "nothing"])
def test_totals_are_kept_as_long_as_the_queue_holds_something(queue: ReliableQueue, holds: str) -> None:
    key = queue.key_prefix + "counters"
    queue.push(b"a")
    reserve(queue)
    end_leases(queue)
    queue.pop()
    if holds == "delayed":
        queue.push_later(100, [b"b"])
    elif holds != "nothing":
        queue.push(b"b")
        delivery = reserve(queue)[0] if holds != "waiting" else None
        if holds == "dead" and delivery:
            queue.release(delivery.id, dead=True)
    queue.client.expire(key, HOUR)
    queue.stats()
    assert (queue.client.ttl(key) > HOUR) == (holds != "nothing")
    assert queue.stats().expired == 1


def test_a_message_is_at_the_head_until_it_is_taken(queue: ReliableQueue) -> None:
    assert queue.stats().head_age == 0
    queue.push(b"a", b"b")
    assert queue.stats().head_age == 0
    assert is_same_head(queue)
    queue.push(b"c")
    assert is_same_head(queue, 900)
    assert queue.pop() == [b"a"]
    assert not is_same_head(queue)
    queue.pop(9)
    assert queue.stats().head_age == 0
    queue.push(b"b")
    assert queue.stats().head_age < 100


def test_an_equal_message_is_another_one_if_fewer_wait_than_before(queue: ReliableQueue) -> None:
    queue.push(b"a", b"a", b"a")
    queue.stats()
    queue.push(b"a")
    assert is_same_head(queue)
    queue.pop(1)
    assert not is_same_head(queue)


def test_stats_of_an_unchanged_queue_write_nothing(queue: ReliableQueue, backend: Any) -> None:
    queue.push(b"x" * 100_000)
    queue.stats()
    key = queue.key_prefix + "counters"
    before = backend.hgetall(key)
    backend.expire(key, 20 * 3600)
    queue.stats()
    assert backend.hgetall(key) == before
    assert backend.ttl(key) <= 20 * 3600
    assert max(map(len, before.values())) < 100  # not the message
