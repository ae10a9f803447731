"""What Redis counts for /metrics, and since when the same message has been next."""

from typing import Any

from broker.queue import ReliableQueue
from tests.broker.helpers import dead_letters, end_leases, numbered, reserve, with_one_delivery


def has_stayed(queue: ReliableQueue, seconds: float = 500) -> bool:
    """Return whether the next message is the same as at the last look, by setting back when that one was first seen."""
    key = queue.key_prefix + "counters"
    since = queue.client.hget(key, "head_since")
    if since:
        queue.client.hset(key, "head_since", int(since) - round(seconds * 1000))
    return queue.stats().head_age >= seconds


def test_a_lease_that_runs_out_is_counted_once(queue: ReliableQueue) -> None:
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
    measures = queue.stats()
    assert (measures.expired, measures.buried) == (2, 3)
    assert dead_letters(queue).stats().buried == 0


def test_what_is_counted_outlives_the_messages(queue: ReliableQueue) -> None:
    queue.push(b"a")
    reserve(queue)
    end_leases(queue)
    queue.pop()
    assert queue.stats().expired == 1


def test_the_same_message_is_next_until_it_is_taken(queue: ReliableQueue) -> None:
    assert queue.stats().head_age == 0
    queue.push(b"a", b"b")
    assert queue.stats().head_age == 0
    assert has_stayed(queue)
    queue.push(b"c")
    assert has_stayed(queue, 900)
    assert queue.pop() == [b"a"]
    assert not has_stayed(queue)
    queue.pop(9)
    assert queue.stats().head_age == 0
    queue.push(b"b")
    assert queue.stats().head_age < 100


def test_equal_messages_are_told_apart_once_fewer_wait(queue: ReliableQueue) -> None:
    queue.push(b"a", b"a", b"a")
    queue.stats()
    queue.push(b"a")
    assert has_stayed(queue)
    queue.pop(1)
    assert not has_stayed(queue)


def test_a_look_at_an_unchanged_queue_writes_nothing(queue: ReliableQueue, backend: Any) -> None:
    queue.push(b"x" * 100_000)
    queue.stats()
    key = queue.key_prefix + "counters"
    before = backend.hgetall(key)
    backend.expire(key, 25 * 24 * 3600)
    queue.stats()
    assert backend.hgetall(key) == before
    assert backend.ttl(key) <= 25 * 24 * 3600
    assert max(map(len, before.values())) < 100  # not the message
