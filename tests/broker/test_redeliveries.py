"""The history of messages that came back: kept in bounded memory, whatever other clients do."""

from collections.abc import Callable
from typing import Any

import pytest

from broker.models import Delivery
from broker.queue import ReliableQueue
from tests.broker.helpers import end_leases, reserve
from tests.servers import Store

HOUR = 3_600_000  # milliseconds


@pytest.fixture
def queue(backend: Any, name: str) -> ReliableQueue:
    return ReliableQueue(backend, name, max_deliveries=3)


def entries(queue: ReliableQueue) -> int:
    """Return the number of messages whose history is kept."""
    return int(queue.client.llen(queue.key_prefix + "redeliveries"))


def reserve_and_release(queue: ReliableQueue, number: int = 1) -> list[tuple[bytes, int]]:
    """Reserve and release messages; return each with its deliveries."""
    found = queue.reserve(max=number).messages
    queue.release(*(one.id for one in found))
    return [(bytes(one), one.deliveries) for one in found]


def reserve_all(queue: ReliableQueue) -> list[Delivery]:
    """Reserve all messages, which may be too large for one batch."""
    reserved: list[Delivery] = []
    while found := queue.reserve(lease=3600, max=1000).messages:
        reserved += found
    return reserved


def test_deliveries_are_counted_through_pushes_to_the_front(queue: ReliableQueue) -> None:
    queue.push(b"poison", b"behind")
    assert reserve_and_release(queue) == [(b"poison", 1)]
    queue.push(b"first", b"second", front=True)
    assert queue.pop(2) == [b"first", b"second"]
    queue.push_once("key", [b"third"], front=True)
    assert queue.pop() == [b"third"]
    queue.requeue(b"fourth", b"fifth")
    assert queue.pop(2) == [b"fourth", b"fifth"]
    assert reserve_and_release(queue) == [(b"poison", 2)]


def test_a_raw_push_to_the_front_resets_the_deliveries_of_those_behind_it(queue: ReliableQueue) -> None:
    queue.push(b"a", b"behind")
    assert reserve_and_release(queue) == [(b"a", 1)]
    queue.client.rpush(queue.key, b"raw")
    assert queue.pop() == [b"raw"]
    assert reserve_and_release(queue) == [(b"a", 1)]
    assert reserve_and_release(queue) == [(b"a", 2)]


def test_a_new_message_does_not_inherit_the_deliveries_of_an_equal_one_that_a_raw_client_popped(
    queue: ReliableQueue,
) -> None:
    queue.push(b"a", b"b")
    assert reserve_and_release(queue) == [(b"a", 1)]
    assert queue.client.rpop(queue.key) == b"a"
    queue.push(b"a")
    assert reserve_and_release(queue, 2) == [(b"b", 1), (b"a", 1)]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_new_message_does_not_inherit_the_deliveries_of_an_equal_one_that_was_removed(
    queue: ReliableQueue, position: int
) -> None:
    texts = [b"a", b"b", b"a"]
    queue.push(*texts)
    reserve_and_release(queue, 3)
    reserve_and_release(queue, 1)
    queue.remove(position, texts[position])
    queue.push(texts[position])
    expected = [(b"a", 3), (b"b", 2), (b"a", 2)]
    del expected[position]
    assert reserve_and_release(queue, 3) == [*expected, (texts[position], 1)]


def test_messages_that_raw_clients_pop_leave_no_memory(queue: ReliableQueue) -> None:
    for number in range(2):
        queue.push(*(b"%d-%d" % (number, i) + b"x" * 1000 for i in range(1000)))
    reserve_and_release(queue, 1000), reserve_and_release(queue, 1000)
    assert max(len(entry) for entry in queue.client.lrange(queue.key_prefix + "redeliveries", 0, -1)) < 60
    while queue.client.rpop(queue.key, 1000):
        pass
    assert queue.reserve().messages == []
    assert entries(queue) == 0


def test_hundreds_of_equal_messages_keep_their_own_deliveries(queue: ReliableQueue) -> None:
    queue.push(*[b"same"] * 1000)
    first = queue.reserve(max=600).messages
    queue.release(*(one.id for one in first[:300]))
    assert [deliveries for _, deliveries in reserve_and_release(queue, 600)] == [2] * 300 + [1] * 300
    again = queue.reserve(max=600).messages
    assert [one.deliveries for one in again] == [3] * 300 + [2] * 300


def test_the_history_ends_after_an_hour(queue: ReliableQueue) -> None:
    queue.push(b"front", b"old")
    reserve_and_release(queue, 2)
    key = queue.key_prefix + "redeliveries"
    assert 3500 < queue.client.ttl(key) <= 3600
    digest, deliveries, when, *failure = queue.client.lindex(key, 0).split(b":")
    queue.client.lset(key, 0, b":".join([digest, deliveries, b"%d" % (int(when) - HOUR - 1), *failure]))
    assert entries(queue) == 2
    reserve_and_release(queue)
    assert entries(queue) == 1


@pytest.mark.parametrize("operation", ["state", "extend", "push later"])
def test_a_clock_set_back_does_not_extend_leases_by_as_much(queue: ReliableQueue, operation: str) -> None:
    """The clock of a server cannot be set here, so what the server wrote is an hour ahead instead."""
    queue.push(b"a", b"b")
    first, second = queue.reserve(lease=30, max=2).messages
    key = queue.key_prefix + "clock"
    queue.client.set(key, ":".join(str(int(time) + HOUR) for time in queue.client.get(key).split(b":")))
    for one in (first, second):
        queue.client.zincrby(queue.key_prefix + "reserved", HOUR, one.id)
    operations: dict[str, Callable[[], object]] = {
        "state": lambda: queue.state(),
        "extend": lambda: queue.extend(first.id, 60),
        "push later": lambda: queue.push_later(10, [b"c"]),
    }
    operations[operation]()
    deadlines = [queue.client.zscore(queue.key_prefix + "reserved", one.id) / 1000 for one in (first, second)]
    assert deadlines[0] - first.deadline < (65 if operation == "extend" else 5)
    assert abs(deadlines[1] - second.deadline) < 5
    assert queue.state().counts.reserved == 2


@pytest.mark.soak
@pytest.mark.slow
def test_dead_letters_keep_their_order_however_many_and_large_they_are(queue: ReliableQueue) -> None:
    texts = [b"%04d" % number + b"x" * 50_000 for number in range(1100)]
    for text in texts:
        queue.push(text)
    for _ in range(3):
        reserved = reserve_all(queue)
        assert [bytes(one)[:4] for one in reserved] == [text[:4] for text in texts]
        end_leases(queue, *(one.id for one in reserved))
    assert queue.state().counts.count == 0
    dead = ReliableQueue(queue.client, queue.name + ".dead")
    assert [text[:4] for text in dead.all()] == [text[:4] for text in texts]


def test_a_release_of_more_bytes_than_one_call_moves_is_whole(queue: ReliableQueue) -> None:
    texts = [b"%02d" % number + b"x" * 4_000_000 for number in range(6)]
    queue.push(*texts)
    reserved = reserve_all(queue)
    assert len(reserved) == 6
    assert queue.release(*(one.id for one in reserved)) == 0
    assert queue.all() == texts
    assert queue.state().counts.reserved == 0


def test_large_leases_that_end_together_return_in_several_calls(queue: ReliableQueue) -> None:
    texts = [b"%d" % number + b"x" * (1 << 20) for number in range(6)]
    queue.push(*texts)
    end_leases(queue, *(one.id for one in reserve(queue, 6)))
    client, calls = queue.client, 0
    with client.monitor() as monitor:
        queue.sweep()
        client.echo("end")
        while not (command := monitor.next_command()["command"]).startswith("ECHO"):
            calls += command.startswith("EVAL")
    assert calls >= 3
    assert queue.all() == texts


@pytest.mark.slow
def test_large_leases_that_end_together_need_no_more_memory_than_there_is(own_store: Callable[..., Store]) -> None:
    client = own_store("valkey", "--maxmemory", "150mb", "--maxmemory-policy", "noeviction").client()
    queue = ReliableQueue(client, "large")
    for number in range(80):
        queue.push(b"%03d" % number + b"x" * (1 << 20))
    reserved = reserve_all(queue)
    assert len(reserved) == 80
    end_leases(queue, *(one.id for one in reserved))
    before = client.info("memory")["used_memory"]
    client.config_set("maxmemory", before)  # full from here on
    assert queue.state().counts.count == 80
    assert client.info("memory")["used_memory_peak"] < before + (20 << 20)
    assert [head for head, _ in queue.state(80, 0, 3).heads] == [b"%03d" % number for number in range(80)]
