"""Messages for later: where they join the queue, what their ids can do, and that a push of many is all or none."""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import redis

from broker.models import Conflict, LeaseExpired, Pushed
from broker.queue import ReliableQueue
from tests.broker.helpers import counts, end_leases, numbered, on_real_servers, reserve


def end_delays(queue: ReliableQueue, *ids: str) -> None:
    """Let delays end long ago, in the order of the ids; without ids all of them, in the order they would end."""
    key = queue.key_prefix + "delayed"
    if ended := [id.encode() for id in ids] or queue.client.zrange(key, 0, -1):
        queue.client.zadd(key, {id: number for number, id in enumerate(ended, 1)})


def delayed(queue: ReliableQueue) -> list[tuple[bytes, int]]:
    return [(one.head, one.deliveries) for one in queue.in_flight("delayed", 1000, 100)]


def test_a_delayed_message_joins_the_back_when_it_is_due(queue: ReliableQueue) -> None:
    pushed = queue.push_later(100, [b"later"])
    [id] = pushed.ids
    queue.push(b"a", b"b")
    assert (pushed.count, queue.state().counts.delayed, queue.pop(9)) == (0, 1, [b"a", b"b"])
    queue.push(b"c", b"d")
    [held] = queue.in_flight("delayed", 9, 9)
    assert (held.id, held.head, held.size, held.deliveries, held.reason) == (id, b"later", 5, 0, "")
    assert abs(held.deadline - time.time() - 100) < 50
    end_delays(queue)
    assert (queue.state().counts.delayed, queue.all()) == (0, [b"c", b"d", b"later"])


def test_those_that_are_due_join_in_the_order_they_are_due(queue: ReliableQueue) -> None:
    second = queue.push_later(200, numbered(3, 10)).ids
    first = queue.push_later(100, numbered(3)).ids
    assert delayed(queue) == [(text, 0) for text in (*numbered(3), *numbered(3, 10))]
    end_delays(queue)
    assert queue.pop(9) == [*numbered(3), *numbered(3, 10)]
    assert len({*first, *second}) == 6


@on_real_servers
def test_many_keep_their_order_and_all_come(queue: ReliableQueue) -> None:
    ids = queue.push_later(100, numbered(12_345)).ids
    assert (len(set(ids)), queue.state().counts.delayed) == (12_345, 12_345)
    end_delays(queue)
    assert (queue.state().counts.delayed, queue.all()) == (0, numbered(12_345))


def test_a_push_for_later_is_done_once_for_a_key(queue: ReliableQueue) -> None:
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
    for stale in (lambda: queue.release(now), lambda: queue.extend(never, 9), lambda: queue.ack(later)):
        with pytest.raises(LeaseExpired):
            stale()


def test_a_retry_comes_back_to_the_front_and_its_old_id_is_stale(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    [one] = reserve(queue)
    assert queue.release(one.id, delay=100, reason="TimeoutError: slow") == 0
    for stale in (lambda: queue.ack(one.id), lambda: queue.release(one.id), lambda: queue.extend(one.id, 9)):
        with pytest.raises(LeaseExpired):
            stale()
    [held] = queue.in_flight("delayed", 9, 9)
    assert (held.head, held.deliveries, held.reason) == (b"a", 1, "TimeoutError: slow")
    assert held.failed and abs(held.failed - time.time()) < 50
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
        queue.state()
    assert counts(queue) == (0, 0, 1)


def test_a_delay_and_a_lease_that_end_together_come_in_order(queue: ReliableQueue) -> None:
    queue.push(b"leased", b"retried", b"waiting")
    leased, retried = reserve(queue, 2)
    queue.release(retried.id, delay=100)
    queue.push_later(100, [b"new"])
    end_leases(queue, leased.id)
    end_delays(queue)
    queue.sweep()
    assert queue.all() == [b"leased", b"retried", b"waiting", b"new"]


def test_an_id_is_checked_before_anything_is_released(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    one, two = reserve(queue, 2)
    with pytest.raises(LeaseExpired) as stale:
        queue.release(one.id, "1-none", two.id, delay=10)
    assert (stale.value.ids, counts(queue), delayed(queue)) == (["1-none"], (0, 2, 0), [])


@on_real_servers
def test_a_full_server_refuses_all_of_a_push_for_later(queue: ReliableQueue) -> None:
    queue.push(b"a")
    queue.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(redis.OutOfMemoryError):
            queue.push_later(100, numbered(50))
        queue.release(reserve(queue)[0].id, delay=100)  # what is there already can be retried
    finally:
        queue.client.config_set("maxmemory", 0)
    assert delayed(queue) == [(b"a", 1)]


def test_a_list_of_delayed_messages_goes_on_behind_one_that_has_left(queue: ReliableQueue) -> None:
    ids = queue.push_later(100, numbered(5)).ids
    first = queue.in_flight("delayed", 2, 9)
    queue.ack(ids[1])
    assert [one.head for one in queue.in_flight("delayed", 9, 9, after=first[0])] == numbered(3, 2)
    assert [one.head for one in queue.in_flight("delayed", 1, 9, offset=1)] == [b"2"]
