"""The totals that Redis keeps for /metrics."""

from typing import Any

import pytest

from broker.queue import ReliableQueue
from tests.broker.helpers import dead_letters, end_leases, numbered, reserve, with_one_delivery

HOUR = 3600  # seconds


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


def test_stats_of_an_unchanged_queue_write_nothing(queue: ReliableQueue, backend: Any) -> None:
    queue.push(b"a")
    reserve(queue)
    end_leases(queue)
    queue.stats()
    key = queue.key_prefix + "counters"
    backend.expire(key, 20 * HOUR)
    queue.stats()
    assert backend.hgetall(key) == {b"expired": b"1"}
    assert backend.ttl(key) <= 20 * HOUR
