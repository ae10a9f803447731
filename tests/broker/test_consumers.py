"""Who has reserved messages and who waits for one, by the names that they give."""

import pytest

from broker.connections.connection import connect
from broker.models import Consumer
from broker.queue import ReliableQueue, consumers
from tests.broker.helpers import numbered, reserve
from tests.engines import Cluster
from tests.servers import Store


def totals(queue: ReliableQueue) -> dict[str, tuple[int, int]]:
    """Return the number of reservations and of waiting requests of each consumer."""
    found, is_complete = queue.consumers()
    assert is_complete
    return {one.by: (one.reserved, one.waiting) for one in found}


def test_a_reservation_is_listed_with_who_made_it(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    queue.reserve(30, 1, "host:1")
    queue.reserve(60, 1)
    assert [(one.head, one.by) for one in queue.in_flight("reserved", 9, 9)] == [(b"a", "host:1"), (b"b", "")]


def test_a_delayed_message_says_who_released_it_until_it_is_reserved_again(queue: ReliableQueue) -> None:
    queue.push(b"a")
    [first] = queue.reserve(30, 1, "one").messages
    queue.release(first.id, delay=100)
    [delayed] = queue.in_flight("delayed", 9, 9)
    assert delayed.by == "one"
    queue.release(delayed.id)
    reserve(queue)
    assert [one.by for one in queue.in_flight("reserved", 9, 9)] == [""]
    assert queue.client.hlen(queue.key_prefix + "bodies") == 1


@pytest.mark.parametrize("end", ["ack", "release", "bury", "expire"])
def test_the_name_goes_with_its_reservation(queue: ReliableQueue, end: str) -> None:
    queue.push(b"a")
    [one] = queue.reserve(30, 1, "worker").messages
    if end == "expire":
        queue.client.zadd(queue.key_prefix + "reserved", {one.id: 1})
        queue.sweep()
    elif end == "ack":
        queue.ack(one.id)
    else:
        queue.release(one.id, dead=end == "bury")
    assert not queue.client.exists(queue.key_prefix + "bodies")
    assert totals(queue) == {}


def test_consumers_are_counted_by_name_and_those_without_one_together(queue: ReliableQueue) -> None:
    queue.push(*numbered(6))
    queue.reserve(30, 3, "a")
    queue.reserve(30, 1, "b")
    queue.reserve(30, 2)
    queue.report_waiters("one", 5, 30, {"a": 2, "c": 1, "": 2})
    queue.report_waiters("two", 1, 30, {"a": 1})
    queue.report_waiters("gone", 9, 0, {"d": 9})
    assert totals(queue) == {"a": (3, 3), "b": (1, 0), "c": (0, 1), "": (2, 2)}
    assert queue.state().counts.waiters == 6


def test_the_consumer_that_has_held_a_message_for_longest_comes_first(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    queue.report_waiters("process", 1, 30, {"waits": 1})
    now = queue.client.time()[0]
    for by, age in (("new", 5), ("old", 90)):
        [one] = queue.reserve(1000, 1, by).messages
        id = f"{now - age}000000-0001-c6c635c30e138159-1"
        for command in ("zadd", "hset"):
            key, value = ("reserved", (now + 1000) * 1000) if command == "zadd" else ("bodies", bytes(one))
            getattr(queue.client, command)(queue.key_prefix + key, mapping={id: value})
        queue.client.hset(queue.key_prefix + "bodies", f"{id}:by", by)
        queue.ack(one.id)
    old, new, waits = queue.consumers()[0]
    assert (old.by, new.by, waits) == ("old", "new", Consumer("waits", 0, None, 1))
    assert 89 <= old.oldest <= 100 and 4 <= new.oldest <= 15  # type: ignore[operator]


def test_more_reservations_than_one_call_looks_at_are_all_counted(queue: ReliableQueue) -> None:
    queue.push(*numbered(2500))
    for by in ("a", "b", ""):
        queue.reserve(30, 1000, by)
    assert totals(queue) == {"a": (1000, 0), "b": (1000, 0), "": (500, 0)}


def test_more_names_than_an_answer_has_are_left_out_and_it_says_so(
    queue: ReliableQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "MAX_NAMES", 3)
    queue.push(*numbered(5))
    for number in range(5):
        queue.reserve(30 + number, 1, f"w{number}")
    queue.report_waiters("process", 9, 30, {"w0": 1, "": 1, "x1": 2, "x2": 5})
    found, is_complete = queue.consumers()
    assert not is_complete
    assert {one.by: (one.reserved, one.waiting) for one in found} == {"w0": (1, 1), "w1": (1, 0), "w2": (1, 0)}


def test_a_process_reports_a_limited_number_of_names_and_counts_the_others_without_one(
    queue: ReliableQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumers, "MAX_NAMES", 2)
    queue.report_waiters("process", 6, 30, {"a": 1, "b": 2, "c": 3})
    assert queue.state().counts.waiters == 6
    monkeypatch.undo()
    assert totals(queue) == {"a": (0, 1), "b": (0, 2), "": (0, 3)}


def test_a_reservation_without_a_name_costs_no_more_commands_and_one_with_a_name_neither(
    valkey: Store, name: str
) -> None:
    client = valkey.client()
    queue = ReliableQueue(client, name)
    calls = []
    for by in ("first", "", "worker"):  # the first one announces when it is due
        queue.push(b"a")
        before = client.info("commandstats")
        queue.ack(queue.reserve(30, 1, by).messages[0].id)
        after = client.info("commandstats")
        calls.append({key: one["calls"] - before.get(key, {"calls": 0})["calls"] for key, one in after.items()})
    assert calls[1] == calls[2]


def test_consumers_of_a_cluster(cluster: Cluster, name: str) -> None:
    queue = ReliableQueue(connect(cluster.url), name)
    queue.push(b"a")
    queue.reserve(30, 1, "worker")
    queue.report_waiters("process", 1, 30, {"waits": 1})
    assert totals(queue) == {"worker": (1, 0), "waits": (0, 1)}
