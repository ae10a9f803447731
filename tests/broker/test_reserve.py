"""Reserving, acking, releasing and extending, and leases that end."""

import re
import secrets
from collections.abc import Callable
from typing import Any

import pytest

from broker.models import LeaseExpired
from broker.queue import ReliableQueue
from tests.broker.helpers import counts, dead_letters, end_leases, numbered, reserve, with_one_delivery
from tests.servers import until


def redis_time(queue: ReliableQueue) -> float:
    seconds, microseconds = queue.client.time()
    return float(seconds + microseconds / 1e6)


def test_an_empty_queue_has_nothing_to_reserve(queue: ReliableQueue) -> None:
    batch = queue.reserve()
    assert (batch.messages, batch.next_due, counts(queue)) == ([], None, (0, 0, 0))


def test_a_reserved_message_is_neither_waiting_nor_lost(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    [delivery] = reserve(queue)
    assert (bytes(delivery), delivery.deliveries) == (b"a", 1)
    assert (queue.all(), counts(queue)) == ([b"b"], (1, 1, 0))


def test_a_deadline_is_now_plus_the_lease_by_the_clock_of_redis(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    before = redis_time(queue)
    [delivery] = reserve(queue, lease=1.5)
    after = redis_time(queue)
    assert before + 1.499 <= delivery.deadline <= after + 1.501
    before = redis_time(queue)
    deadline = queue.extend(delivery.id, 43200)
    assert before + 43199.999 <= deadline <= redis_time(queue) + 43200.001
    assert queue.client.zscore(queue.key_prefix + "reserved", delivery.id) == round(deadline * 1000)


def test_reserve_takes_up_to_max_oldest_first(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b", b"c")
    assert (reserve(queue, 2), reserve(queue, 2), reserve(queue, 2)) == ([b"a", b"b"], [b"c"], [])


def test_a_thousand_messages_are_reserved_acked_and_released_at_once(queue: ReliableQueue) -> None:
    queue.push(*numbered(2001))
    first, second = reserve(queue, 1000), reserve(queue, 1000)
    assert (first, second) == (numbered(1000), numbered(1000, 1000))
    assert len({delivery.id for delivery in first + second}) == 2000
    assert queue.ack(*(delivery.id for delivery in first)) == 1000
    assert queue.release(*(delivery.id for delivery in second)) == 0
    assert queue.all() == numbered(1001, 1000)
    assert counts(queue) == (1001, 0, 0)


def test_ids_cannot_be_guessed_and_sort_in_the_order_of_reservation(queue: ReliableQueue) -> None:
    queue.push(*numbered(30))
    ids = [delivery.id for _ in range(3) for delivery in reserve(queue, 10)]
    assert ids == sorted(ids)
    assert len({id.split("-")[2] for id in ids}) == 3
    assert all(re.fullmatch(r"[0-9]{16}-[0-9]{4}-[0-9a-f]{16}-1", id) for id in ids)


@pytest.mark.parametrize(
    "message",
    [bytes(range(256)), b"\0", b"\n", b"\r\n", b":", b"1:2:", b"2*3,", b"%s %d", b"\xff\xfe", b" ", "🐎".encode()],
)
def test_any_bytes_survive_every_operation(queue: ReliableQueue, message: bytes) -> None:
    queue.push(message)
    for deliveries in range(1, queue.max_deliveries):
        [delivery] = reserve(queue)
        assert (delivery, delivery.deliveries) == (message, deliveries)
        queue.release(delivery.id)
        assert queue.all() == [message]
    reserve(queue)
    end_leases(queue)
    assert counts(queue) == (0, 0, 1)
    dead = dead_letters(queue)
    assert (queue.all(), dead.all()) == ([], [message])
    assert dead.move(queue.name, 10) == 1
    assert queue.pop_batch(1, "key").messages == queue.pop_batch(1, "key").messages == [message]
    queue.push_once("other", [message])
    assert (queue.clear()[0], queue.all()) == (1, [])
    queue.push(message, b"x")
    queue.remove(0, message)
    assert queue.all() == [b"x"]


def test_a_message_of_one_mebibyte_comes_back_whole(queue: ReliableQueue) -> None:
    message = secrets.token_bytes(1 << 20)
    queue.push(message)
    reserve(queue)
    end_leases(queue)
    assert queue.pop() == [message]


def test_an_acked_message_is_gone_for_good(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    one, two = reserve(queue, 2)
    assert queue.ack(one.id, two.id) == 2
    end_leases(queue)
    assert (queue.all(), counts(queue)) == ([], (0, 0, 0))
    assert queue.client.hlen(queue.key_prefix + "bodies") == 0


def test_acking_twice_is_harmless(queue: ReliableQueue) -> None:
    queue.push(b"a", b"a")
    one, two = reserve(queue, 2)
    assert [queue.ack(one.id), queue.ack(one.id), queue.ack(one.id, two.id)] == [1, 1, 2]
    assert counts(queue) == (0, 0, 0)


def test_an_id_named_twice_counts_once(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    one, two = reserve(queue, 2)
    assert queue.ack(one.id, one.id) == 1
    queue.release(two.id, two.id)
    assert queue.all() == [b"b"]


def test_a_late_ack_changes_nothing(queue: ReliableQueue) -> None:
    queue.push(b"before", b"a")
    queue.ack(reserve(queue)[0].id)  # the next ack has nothing to trim
    [late] = reserve(queue)
    end_leases(queue)
    for operation in (queue.ack, queue.release, lambda id: queue.extend(id, 30)):
        with pytest.raises(LeaseExpired) as raised:
            operation(late.id)
        assert raised.value.ids == [late.id]
    assert (queue.all(), counts(queue)) == ([b"a"], (1, 0, 0))
    [second] = reserve(queue)
    with pytest.raises(LeaseExpired):
        queue.ack(late.id)
    assert (second, second.deliveries, counts(queue)) == (b"a", 2, (0, 1, 0))
    assert queue.ack(second.id) == 1


@pytest.mark.parametrize("operation", ["ack", "release"])
def test_one_expired_id_among_many_changes_nothing(queue: ReliableQueue, operation: str) -> None:
    queue.push(b"a", b"b")
    one, two = reserve(queue, 2)
    with pytest.raises(LeaseExpired) as raised:
        getattr(queue, operation)(one.id, "no such id", two.id, "\N{HORSE}")
    assert raised.value.ids == ["no such id", "\N{HORSE}"]
    assert counts(queue) == (0, 2, 0)
    assert queue.ack(one.id, two.id) == 2


def test_an_acked_message_cannot_be_released_or_extended(queue: ReliableQueue) -> None:
    queue.push(b"a")
    [delivery] = reserve(queue)
    queue.ack(delivery.id)
    for operation in (queue.release, lambda id: queue.extend(id, 30)):
        with pytest.raises(LeaseExpired):
            operation(delivery.id)
    assert counts(queue) == (0, 0, 0)


def test_an_id_of_another_queue_has_expired(queue: ReliableQueue, backend: Any) -> None:
    queue.push(b"a")
    [delivery] = reserve(queue)
    other = ReliableQueue(backend, queue.name + "x")
    with pytest.raises(LeaseExpired):
        other.ack(delivery.id)
    assert (counts(queue), counts(other)) == ((0, 1, 0), (0, 0, 0))


def test_the_last_ten_thousand_acks_are_remembered(queue: ReliableQueue) -> None:
    queue.client.zadd(queue.key_prefix + "acked", {f"old{n}": n for n in range(10_000)})
    queue.push(b"a")
    [delivery] = reserve(queue)
    queue.ack(delivery.id)
    assert queue.client.zcard(queue.key_prefix + "acked") == 10_000
    assert queue.ack(delivery.id, "old1") == 2
    with pytest.raises(LeaseExpired):
        queue.ack("old0")


def test_released_messages_are_popped_next_in_their_original_order(queue: ReliableQueue) -> None:
    queue.push(*numbered(5))
    a, b, c = reserve(queue, 3)
    queue.release(b.id, a.id, c.id)
    assert queue.all() == numbered(5)


def test_a_later_release_goes_in_front_of_an_earlier_one(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b", b"c")
    a, b, c = reserve(queue, 3)
    for delivery in (a, b, c):
        queue.release(delivery.id)
    assert queue.all() == [b"c", b"b", b"a"]


def test_messages_whose_leases_ended_return_oldest_first(queue: ReliableQueue) -> None:
    queue.push(*numbered(6))
    deliveries = [reserve(queue, lease=lease)[0] for lease in (50, 40, 30)]
    end_leases(queue, *(delivery.id for delivery in reversed(deliveries)))
    assert queue.all() == numbered(3, 3)  # the list itself, before any operation returns them
    assert counts(queue) == (6, 0, 0)
    assert queue.all() == numbered(6)


@pytest.mark.parametrize("count", [1000, 1001, 2500])
def test_more_expired_leases_than_one_call_handles_return_in_order(queue: ReliableQueue, count: int) -> None:
    queue.push(*numbered(count + 3))
    while queue.client.llen(queue.key) > 3:
        reserve(queue, min(1000, queue.client.llen(queue.key) - 3))
    end_leases(queue)
    assert queue.pop(1) == [b"0"]
    assert queue.all() == numbered(count + 2, 1)
    assert counts(queue) == (count + 2, 0, 0)


def test_more_expired_leases_than_one_call_handles_are_all_buried(queue: ReliableQueue) -> None:
    single = with_one_delivery(queue)
    single.push(*numbered(2500))
    for _ in range(3):
        reserve(single, 1000)
    end_leases(single)
    assert counts(single) == (0, 0, 2500)
    dead = dead_letters(queue).all()
    assert sorted(dead, key=int) == numbered(2500)


def test_only_messages_whose_leases_ended_return(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b", b"c")
    _, b, _ = reserve(queue, 3)
    end_leases(queue, b.id)
    assert (counts(queue), queue.all()) == ((1, 2, 0), [b"b"])


@pytest.mark.parametrize(
    "operation",
    [
        lambda queue: queue.pop(),
        lambda queue: queue.reserve(),
        lambda queue: queue.pop_batch(1, "key"),
        lambda queue: queue.move(queue.name + "x", 9),
        lambda queue: queue.clear(),
        lambda queue: queue.remove(0, b"a"),
    ],
    ids=["pop", "reserve", "pop with a key", "move", "clear", "remove"],
)
def test_every_operation_that_takes_messages_takes_those_that_are_due(
    queue: ReliableQueue, operation: Callable[[ReliableQueue], Any]
) -> None:
    queue.push(b"a")
    [delivery] = reserve(queue)
    end_leases(queue)
    operation(queue)
    assert queue.client.llen(queue.key) == 0
    assert queue.client.zscore(queue.key_prefix + "reserved", delivery.id) is None


def test_a_reserve_finds_the_lease_that_ended_first_whatever_began_later(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b", b"c", b"d")
    _, [short], _ = (reserve(queue, lease=lease) for lease in (30, 0.05, 30))
    until(lambda: redis_time(queue) > short.deadline)
    assert (reserve(queue), counts(queue)) == ([b"b"], (1, 3, 0))


def test_a_state_shows_an_expired_message_as_waiting(queue: ReliableQueue) -> None:
    queue.push(b"a")
    reserve(queue)
    assert counts(queue) == (0, 1, 0)
    end_leases(queue)
    assert counts(queue) == (1, 0, 0)


def test_an_empty_batch_has_the_time_until_the_next_lease_ends(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    reserve(queue, lease=100)
    reserve(queue, lease=20)
    for batch in (queue.pop_batch(), queue.reserve()):
        assert batch.messages == []
        assert batch.next_due is not None
        assert 0 < batch.next_due <= 20


def test_an_extended_lease_does_not_end(queue: ReliableQueue) -> None:
    queue.push(b"a")
    [delivery] = reserve(queue, lease=1)
    queue.extend(delivery.id, 1000)
    expiry = queue.pop_batch().next_due
    assert expiry is not None
    assert 900 < expiry <= 1000
    queue.extend(delivery.id, 1)  # a shorter lease is allowed too
    expiry = queue.pop_batch().next_due
    assert expiry is None or expiry <= 1


def test_other_redis_clients_push_and_pop_beside_reservations(queue: ReliableQueue) -> None:
    queue.client.lpush(queue.key, "raw", "later")
    [delivery] = reserve(queue)
    queue.release(delivery.id)
    assert queue.client.lrange(queue.key, 0, -1) == [b"later", b"raw"]
    assert queue.client.rpop(queue.key) == b"raw"
    assert reserve(queue) == [b"later"]
