"""The number of times a message was delivered, and the dead letters in which it ends."""

from collections.abc import Callable
from typing import Any

import pytest

from broker.queue import ReliableQueue
from tests.broker.helpers import counts, dead_letters, end_leases, numbered, reserve, with_one_delivery


def test_a_message_is_buried_after_exactly_max_deliveries(queue: ReliableQueue) -> None:
    queue.push(b"poison")
    for deliveries in range(1, 6):
        [delivery] = reserve(queue)
        assert delivery.deliveries == deliveries
        if deliveries % 2:
            buried = queue.release(delivery.id)
            assert buried == (deliveries == 5)
        else:
            end_leases(queue)
    assert (queue.all(), counts(queue)) == ([], (0, 0, 1))
    assert reserve(queue) == []


def test_with_max_deliveries_of_one_a_released_message_is_buried(queue: ReliableQueue) -> None:
    single = with_one_delivery(queue)
    single.push(b"a", b"b")
    deliveries = reserve(single, 2)
    assert single.release(*(delivery.id for delivery in deliveries)) == 2
    assert dead_letters(queue).all() == [b"a", b"b"]


def test_a_message_that_is_released_twice_in_one_call_returns_or_is_buried_once(queue: ReliableQueue) -> None:
    single = with_one_delivery(queue)
    single.push(b"buried")
    [delivery] = reserve(single)
    assert single.release(delivery.id, delivery.id) == 1
    queue.push(b"returned")
    [delivery] = reserve(queue)
    assert queue.release(delivery.id, delivery.id) == 0
    assert (queue.all(), dead_letters(queue).all()) == ([b"returned"], [b"buried"])


def test_dead_letters_are_a_queue_like_any_other(queue: ReliableQueue) -> None:
    single = with_one_delivery(queue)
    single.push(*numbered(4))
    single.release(*(delivery.id for delivery in reserve(single, 4)))
    dead = dead_letters(queue)
    assert (dead.all(), dead.count(), dead.pop()) == (numbered(4), 4, [b"0"])
    [delivery] = reserve(dead)
    assert (delivery, delivery.deliveries, dead.ack(delivery.id)) == (b"1", 1, 1)
    assert dead.move(queue.name, 1000) == 2
    assert queue.all() == [b"2", b"3"]
    assert reserve(queue)[0].deliveries == 1  # they start again


def test_dead_letters_have_dead_letters_of_their_own(queue: ReliableQueue) -> None:
    single = ReliableQueue(queue.client, queue.name + ".dead", max_deliveries=1)
    single.push(b"a")
    single.release(reserve(single)[0].id)
    assert counts(single) == (0, 0, 1)
    assert ReliableQueue(queue.client, queue.name + ".dead.dead").all() == [b"a"]
    assert counts(queue) == (0, 0, 0)


def test_the_deliveries_of_equal_messages_are_counted_apart(queue: ReliableQueue) -> None:
    queue.push(b"same", b"same", b"same")
    [first] = reserve(queue)
    queue.release(first.id)
    found = reserve(queue, 3)
    assert [delivery.deliveries for delivery in found] == [2, 1, 1]
    queue.release(*(delivery.id for delivery in found))
    assert [delivery.deliveries for delivery in reserve(queue, 3)] == [3, 2, 2]


def test_a_new_copy_of_a_returned_message_starts_at_its_first_delivery(queue: ReliableQueue) -> None:
    queue.push(b"same")
    queue.release(reserve(queue)[0].id)
    queue.push(b"same")
    assert [delivery.deliveries for delivery in reserve(queue, 2)] == [2, 1]


def test_an_empty_queue_remembers_no_deliveries(queue: ReliableQueue) -> None:
    queue.push(b"same")
    queue.release(reserve(queue)[0].id)
    queue.client.rpop(queue.key)  # a client that knows nothing of deliveries
    queue.push(b"other")
    queue.pop()
    assert not queue.client.exists(queue.key_prefix + "redeliveries")
    queue.push(b"same")
    assert reserve(queue)[0].deliveries == 1


@pytest.mark.parametrize("operation", ["pop", "remove", "clear", "clear and restore", "move", "move one"])
def test_the_deliveries_of_a_message_are_forgotten_when_it_leaves(queue: ReliableQueue, operation: str) -> None:
    queue.push(b"same", b"other")
    queue.release(reserve(queue)[0].id)
    operations: dict[str, Callable[[], Any]] = {
        "pop": lambda: queue.pop(),
        "remove": lambda: queue.remove(0, b"same"),
        "clear": lambda: queue.clear(),
        "clear and restore": lambda: (queue.restore(str(queue.clear()[1])), queue.pop()),
        "move": lambda: queue.move(queue.name + "x", 1),
        "move one": lambda: queue.move_one(queue.name + "x", 0, b"same"),
    }
    operations[operation]()
    assert not queue.client.exists(queue.key_prefix + "redeliveries")
    queue.push(b"same", front=True)
    assert reserve(queue)[0].deliveries == 1
