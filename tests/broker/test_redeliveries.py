"""What is remembered of messages that came back: their deliveries, in bounded memory, whatever raw clients do."""

from collections.abc import Callable
from typing import Any

import pytest

from broker.models import Delivery
from broker.queue import ReliableQueue
from tests.broker.helpers import on_real_servers
from tests.servers import Store


@pytest.fixture
def queue(backend: Any, name: str) -> ReliableQueue:
    return ReliableQueue(backend, name, max_deliveries=3)


def returned(queue: ReliableQueue) -> int:
    """Return how many messages are remembered."""
    return int(queue.client.llen(queue.key_prefix + "redeliveries"))


def take(queue: ReliableQueue, number: int = 1) -> list[tuple[bytes, int]]:
    """Reserve and release messages; return each with its deliveries."""
    found = queue.reserve(max=number).messages
    queue.release(*(one.id for one in found))
    return [(bytes(one), one.deliveries) for one in found]


def expire(queue: ReliableQueue, *deliveries: Delivery) -> None:
    queue.client.zadd(queue.key_prefix + "reserved", {one.id: number for number, one in enumerate(deliveries)})


def test_deliveries_are_counted_through_pushes_to_the_front(queue: ReliableQueue) -> None:
    queue.push(b"poison", b"behind")
    assert take(queue) == [(b"poison", 1)]
    queue.push(b"first", b"second", front=True)
    assert queue.pop(2) == [b"first", b"second"]
    queue.push_once("key", [b"third"], front=True)
    assert queue.pop() == [b"third"]
    queue.requeue(b"fourth", b"fifth")
    assert queue.pop(2) == [b"fourth", b"fifth"]
    assert take(queue) == [(b"poison", 2)]


def test_a_raw_push_to_the_front_lets_the_count_of_those_behind_it_start_anew(queue: ReliableQueue) -> None:
    queue.push(b"a", b"behind")
    assert take(queue) == [(b"a", 1)]
    queue.client.rpush(queue.key, b"raw")
    assert queue.pop() == [b"raw"]
    assert take(queue) == [(b"a", 1)]
    assert take(queue) == [(b"a", 2)]


def test_a_new_message_does_not_inherit_the_deliveries_of_an_equal_one_that_a_raw_client_took(
    queue: ReliableQueue,
) -> None:
    queue.push(b"a", b"b")
    assert take(queue) == [(b"a", 1)]
    assert queue.client.rpop(queue.key) == b"a"
    queue.push(b"a")
    assert take(queue, 2) == [(b"b", 1), (b"a", 1)]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_new_message_does_not_inherit_the_deliveries_of_an_equal_one_that_was_removed(
    queue: ReliableQueue, position: int
) -> None:
    texts = [b"a", b"b", b"a"]
    queue.push(*texts)
    take(queue, 3)
    take(queue, 1)
    queue.remove(position, texts[position])
    queue.push(texts[position])
    expected = [(b"a", 3), (b"b", 2), (b"a", 2)]
    del expected[position]
    assert take(queue, 3) == [*expected, (texts[position], 1)]


@pytest.mark.parametrize("way", ["pop", "move", "clear", "clear and restore"])
def test_a_message_that_left_is_forgotten(queue: ReliableQueue, way: str) -> None:
    queue.push(b"a")
    take(queue)
    if way == "pop":
        queue.pop()
    elif way == "move":
        queue.move(queue.name + "x", 1)
    else:
        _, undo = queue.clear()
        if undo and way == "clear and restore":
            queue.restore(undo)
            queue.pop()
    assert returned(queue) == 0
    queue.push(b"a")
    assert take(queue) == [(b"a", 1)]


@pytest.mark.slow
@on_real_servers
def test_messages_that_raw_clients_pop_leave_no_memory(queue: ReliableQueue) -> None:
    for number in range(0, 2000, 1000):
        queue.push(*(b"%d" % (number + i) + b"x" * 10_000 for i in range(1000)))
    take(queue, 1000), take(queue, 1000)
    text = queue.key_prefix + "redeliveries"
    assert max(len(entry) for entry in queue.client.lrange(text, 0, -1)) < 60
    while queue.client.rpop(queue.key, 1000):
        pass
    assert queue.reserve().messages == []
    assert returned(queue) == 0


def test_thousands_of_equal_messages_keep_their_own_deliveries(queue: ReliableQueue) -> None:
    number = 3000
    for _ in range(3):
        queue.push(*[b"same"] * 1000)
    first = queue.reserve(max=1000).messages
    queue.release(*(one.id for one in first[: number // 6]))
    assert [count for _, count in take(queue, 1000)] == [2] * (number // 6) + [1] * (number // 6)
    again = queue.reserve(max=1000).messages
    assert [one.deliveries for one in again] == [3] * (number // 6) + [2] * (number // 6)


def test_what_is_remembered_ends_after_an_hour(queue: ReliableQueue) -> None:
    queue.push(b"old", b"new")
    take(queue)
    key = queue.key_prefix + "redeliveries"
    assert 3500 < queue.client.ttl(key) <= 3600
    digest, deliveries, when, *failure = queue.client.lindex(key, 0).split(b":")
    queue.client.lset(key, 0, b":".join([digest, deliveries, b"%d" % (int(when) - 3_600_001), *failure]))
    held = queue.reserve(max=2).messages
    queue.release(held[1].id)
    assert returned(queue) == 1


def test_a_clock_set_back_does_not_hold_leases_for_as_long(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    first, second = queue.reserve(lease=30, max=2).messages
    hour = (
        3_600_000  # milliseconds; the clock of a server cannot be set here, so what it wrote is an hour ahead instead
    )
    key = queue.key_prefix + "clock"
    begun, _, announced = queue.client.get(key).decode().partition(":")
    queue.client.set(key, f"{int(begun) + hour}:{int(announced) + hour}")
    for one in (first, second):
        queue.client.zincrby(queue.key_prefix + "reserved", hour, one.id)
    assert queue.state().counts.reserved == 2
    ends = [queue.client.zscore(queue.key_prefix + "reserved", one.id) / 1000 for one in (first, second)]
    assert all(abs(end - first.deadline) < 5 for end in ends)
    assert queue.extend(first.id, 60) - first.deadline < 65


@pytest.mark.soak
@pytest.mark.slow
@on_real_servers
def test_dead_letters_keep_their_order_however_many_and_large_they_are(queue: ReliableQueue) -> None:
    texts = [b"%04d" % number + b"x" * 50_000 for number in range(1100)]
    for text in texts:
        queue.push(text)
    for _ in range(3):
        held: list[Delivery] = []
        while found := queue.reserve(max=1000).messages:
            held += found
        assert [bytes(one)[:4] for one in held] == [text[:4] for text in texts]
        expire(queue, *held)
    assert queue.state().counts.count == 0
    dead = ReliableQueue(queue.client, queue.name + ".dead")
    assert [text[:4] for text in dead.all()] == [text[:4] for text in texts]


def test_a_release_of_more_bytes_than_one_call_moves_is_whole(queue: ReliableQueue) -> None:
    texts = [b"%02d" % number + b"x" * 1_000_000 for number in range(40)]
    queue.push(*texts)
    held: list[Delivery] = []
    while found := queue.reserve(max=100).messages:
        held += found
    assert len(held) == 40
    assert queue.release(*(one.id for one in held)) == 0
    assert queue.all() == texts
    assert queue.state().counts.reserved == 0


@pytest.mark.slow
def test_large_leases_that_end_together_need_no_more_memory_than_there_is(own_store: Callable[..., Store]) -> None:
    store = own_store("valkey", "--maxmemory", "400mb", "--maxmemory-policy", "noeviction")
    client = store.client()
    queue = ReliableQueue(client, "large")
    for number in range(250):
        queue.push(b"%03d" % number + b"x" * (1 << 20))
    held: list[Delivery] = []
    while found := queue.reserve(lease=3600, max=100).messages:
        held += found
    assert len(held) == 250
    expire(queue, *held)
    before = client.info("memory")["used_memory"]
    client.config_set("maxmemory", before)  # full from here on
    assert queue.state().counts.count == 250
    assert client.info("memory")["used_memory_peak"] < before + (20 << 20)
    assert [head for head, _ in queue.state(250, 0, 3).heads] == [b"%03d" % number for number in range(250)]
