"""Delayed messages: where they join the queue, what their ids can do, and that a push of many is all or none."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import redis

from broker.models import Conflict, LeaseExpired, Pushed
from broker.queue import ReliableQueue
from tests.broker.helpers import counts, end_delays, end_leases, numbered, reserve


def delayed(queue: ReliableQueue) -> list[tuple[bytes, int]]:
    return [(one.head, one.details.deliveries) for one in queue.in_flight("delayed", 1000, 100)]


def test_a_delayed_message_joins_the_back_when_it_is_due(queue: ReliableQueue) -> None:
    pushed = queue.push_later(100, [b"later"])
    queue.push(b"a", b"b")
    assert (pushed.count, queue.state().counts.delayed, queue.pop(9)) == (0, 1, [b"a", b"b"])
    queue.push(b"c", b"d")
    [one] = queue.in_flight("delayed", 9, 9)
    assert ([one.id], one.head, one.size, one.details.deliveries, one.details.reason) == (
        pushed.ids,
        b"later",
        5,
        0,
        "",
    )
    assert abs(one.deadline - time.time() - 100) < 50
    end_delays(queue)
    assert (queue.state().counts.delayed, queue.all()) == (0, [b"c", b"d", b"later"])


def test_due_messages_join_in_the_order_they_are_due(queue: ReliableQueue) -> None:
    second = queue.push_later(200, numbered(3, 10)).ids
    first = queue.push_later(100, numbered(3)).ids
    assert delayed(queue) == [(text, 0) for text in (*numbered(3), *numbered(3, 10))]
    end_delays(queue)
    assert queue.pop(9) == [*numbered(3), *numbered(3, 10)]
    assert len({*first, *second}) == 6


def test_thousands_that_are_due_at_once_keep_their_order(queue: ReliableQueue) -> None:
    ids = queue.push_later(100, numbered(3456)).ids
    assert (len(set(ids)), queue.state().counts.delayed) == (3456, 3456)
    end_delays(queue)
    assert (queue.state().counts.delayed, queue.all()) == (0, numbered(3456))


def test_a_delayed_push_is_done_once_for_a_key(queue: ReliableQueue) -> None:
    first = queue.push_later(100, [b"a", b"b"], "key")
    queue.push(b"c")
    assert queue.push_later(100, [b"a", b"b"], "key") == replace(first, is_repeated=True)
    assert delayed(queue) == [(b"a", 0), (b"b", 0)]
    others: list[Callable[[], Pushed]] = [
        lambda: queue.push_later(101, [b"a", b"b"], "key"),
        lambda: queue.push_later(100, [b"a"], "key"),
        lambda: queue.push_once("key", [b"a", b"b"]),
    ]
    for other in others:
        with pytest.raises(Conflict):
            other()
    assert counts(queue) == (1, 0, 0)


def test_a_delayed_message_can_be_released_extended_and_acked(queue: ReliableQueue) -> None:
    now, later, never = queue.push_later(100, [b"now", b"later", b"never"]).ids
    assert queue.release(now) == 0
    assert queue.extend(later, 1000) - time.time() > 500
    assert queue.ack(never) == queue.ack(never) == 1
    assert (queue.all(), delayed(queue)) == ([b"now"], [(b"later", 0)])
    queue.release(later, delay=50)
    assert queue.in_flight("delayed", 9, 9)[0].deadline - time.time() < 80
    queue.release(later, dead=True, reason="not wanted")
    assert counts(queue) == (1, 0, 1)
    for expired in (lambda: queue.release(now), lambda: queue.extend(never, 9), lambda: queue.ack(later)):
        with pytest.raises(LeaseExpired):
            expired()


def test_a_retry_comes_back_to_the_front_and_its_old_id_has_expired(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    [one] = reserve(queue)
    assert queue.release(one.id, delay=100, reason="TimeoutError: slow") == 0
    for expired in (lambda: queue.ack(one.id), lambda: queue.release(one.id), lambda: queue.extend(one.id, 9)):
        with pytest.raises(LeaseExpired):
            expired()
    [retry] = queue.in_flight("delayed", 9, 9)
    assert (retry.head, retry.details.deliveries, retry.details.reason) == (b"a", 1, "TimeoutError: slow")
    assert retry.details.failed and abs(retry.details.failed - time.time()) < 50
    assert queue.all() == [b"b"]
    end_delays(queue)
    queue.sweep()
    assert queue.all() == [b"a", b"b"]
    assert [(bytes(each), each.deliveries) for each in reserve(queue, 2)] == [(b"a", 2), (b"b", 1)]


def test_a_retry_of_the_last_delivery_is_buried_at_once(backend: object, name: str) -> None:
    queue = ReliableQueue(backend, name, max_deliveries=2)
    queue.push(b"a")
    for buried in (0, 1):
        assert queue.release(reserve(queue)[0].id, delay=100, reason="no luck") == buried
        end_delays(queue)
        queue.sweep()
    assert counts(queue) == (0, 0, 1)


def test_a_delay_and_a_lease_that_end_together_return_in_order(queue: ReliableQueue) -> None:
    queue.push(b"leased", b"retried", b"waiting")
    leased, retried = reserve(queue, 2)
    queue.release(retried.id, delay=100)
    queue.push_later(100, [b"new"])
    end_leases(queue, leased.id)
    end_delays(queue)
    queue.sweep()
    assert queue.all() == [b"leased", b"retried", b"waiting", b"new"]


def test_ids_are_checked_before_anything_is_released(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    one, two = reserve(queue, 2)
    with pytest.raises(LeaseExpired) as raised:
        queue.release(one.id, "1-none", two.id, delay=10)
    assert (raised.value.ids, counts(queue), delayed(queue)) == (["1-none"], (0, 2, 0), [])


def test_a_full_server_rejects_all_of_a_delayed_push(queue: ReliableQueue) -> None:
    queue.push(b"a")
    queue.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.OutOfMemoryError):
            queue.push_later(100, numbered(50))
        queue.release(reserve(queue)[0].id, delay=100)  # what is stored already can be retried
    finally:
        queue.client.config_set("maxmemory", 0)
    assert delayed(queue) == [(b"a", 1)]


def test_a_list_of_delayed_messages_continues_behind_one_that_has_left(queue: ReliableQueue) -> None:
    ids = queue.push_later(100, numbered(5)).ids
    first = queue.in_flight("delayed", 2, 9)
    queue.ack(ids[1])
    assert [one.head for one in queue.in_flight("delayed", 9, 9, after=first[0])] == numbered(3, 2)
    assert [one.head for one in queue.in_flight("delayed", 1, 9, offset=1)] == [b"2"]
