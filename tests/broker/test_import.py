"""Import: messages get the state, the deliveries and the failures that they had in another queue."""

from typing import Any

import pytest

from broker.models import Conflict, Details, Exported
from broker.queue import ReliableQueue
from tests.broker.helpers import counts, dead_letters, end_delays, reserve

DIED = Details(5, reason="404: gone", died=1_700_000_000.5)
FAILED = Details(2, 1_700_000_001.25, "slow: 12:30")


def details(queue: ReliableQueue) -> list[tuple[bytes, Details]]:
    """Return the waiting messages with their history."""
    return [(head, history) for head, _, history in queue.details(1000, 0, 100)]


def test_messages_get_the_state_and_the_history_that_they_had(queue: ReliableQueue) -> None:
    pushed = queue.import_messages(
        [
            Exported(b"in flight", "reserved", Details(3)),
            Exported(b"retried", details=FAILED),
            Exported(b"new"),
            Exported(b"moved back", details=DIED),
            Exported(b"later", "delayed", FAILED, deadline=4_000_000_000.5),
            Exported(b"dead", "dead", DIED),
        ]
    )
    assert pushed.count == 4
    assert details(queue) == [
        (b"in flight", Details(3)),
        (b"retried", FAILED),
        (b"new", Details()),
        (b"moved back", DIED),
    ]
    [later] = queue.in_flight("delayed", 9, 100)
    assert (later.id, later.head, later.deadline, later.details) == (pushed.ids[0], b"later", 4_000_000_000.5, FAILED)
    assert details(dead_letters(queue)) == [(b"dead", DIED)]
    assert [each.deliveries for each in reserve(queue, 4)] == [4, 3, 1, 1]


def test_a_message_whose_delay_has_ended_returns_with_its_deliveries(queue: ReliableQueue) -> None:
    queue.push(b"waits")
    queue.import_messages([Exported(b"late", "delayed", FAILED, deadline=1.0)])
    queue.sweep()
    assert details(queue) == [(b"late", FAILED), (b"waits", Details())]


@pytest.mark.parametrize("ahead", [3, 100])
def test_the_history_is_kept_behind_messages_that_have_none(queue: ReliableQueue, ahead: int) -> None:
    queue.push(*[b"ahead"] * ahead)
    for number in (b"1", b"2"):
        queue.import_messages([Exported(number + b"a", details=FAILED), Exported(number + b"b")])
    queue.pop(ahead)
    assert details(queue) == [(b"1a", FAILED), (b"1b", Details()), (b"2a", FAILED), (b"2b", Details())]


def test_behind_too_many_messages_the_deliveries_begin_anew(queue: ReliableQueue) -> None:
    queue.push(*[b"ahead"] * 101)
    queue.import_messages([Exported(b"retried", details=FAILED)])
    queue.pop(101)
    assert details(queue) == [(b"retried", Details())]


def test_entries_that_another_client_left_behind_do_not_count(queue: ReliableQueue) -> None:
    queue.push(b"a")
    queue.release(reserve(queue)[0].id)
    queue.client.rpop(queue.key)
    queue.import_messages([Exported(b"a"), Exported(b"b", details=FAILED)])
    assert details(queue) == [(b"a", Details()), (b"b", FAILED)]


def test_equal_dead_letters_share_the_latest_details_until_the_last_leaves(queue: ReliableQueue) -> None:
    queue.import_messages([Exported(b"a", "dead", DIED), Exported(b"a", "dead", Details(9, reason="late", died=1.0))])
    dead = dead_letters(queue)
    assert details(dead) == [(b"a", Details(9, reason="late", died=1.0))] * 2
    dead.pop(2)
    assert not queue.client.exists(dead.key_prefix + "failure_reasons")


def test_dead_letters_that_wait_in_their_own_queue_keep_their_reasons_as_long(queue: ReliableQueue) -> None:
    dead = dead_letters(queue)
    dead.import_messages([Exported(b"a", details=DIED)])
    queue.import_messages([Exported(b"a", details=DIED)])
    assert details(dead) == details(queue) == [(b"a", DIED)]
    lifetimes = [queue.client.ttl(each.key_prefix + "failure_reasons") for each in (dead, queue)]
    assert lifetimes[0] == -1 and lifetimes[1] > 0


def test_an_import_with_a_key_happens_once(queue: ReliableQueue) -> None:
    batch = [Exported(b"a"), Exported(b"b", "delayed", deadline=4e9)]
    first = queue.import_messages(batch, "key")
    second = queue.import_messages(batch, "key")
    assert (second.count, second.ids, second.is_repeated) == (first.count, first.ids, True)
    assert (queue.all(), queue.state().counts.delayed) == ([b"a"], 1)
    with pytest.raises(Conflict):
        queue.import_messages(batch[:1], "key")


def test_a_thousand_messages_are_imported_at_once_and_in_order(queue: ReliableQueue) -> None:
    messages = [b"%d" % number for number in range(1000)]
    queue.import_messages([Exported(each, details=FAILED) for each in messages])
    assert queue.all() == messages
    assert [each.deliveries for each in reserve(queue, 1000)] == [3] * 1000


def test_the_clock_knows_of_imported_delays(queue: ReliableQueue, backend: Any) -> None:
    queue.push_later(4.5e9 - backend.time()[0], [b"between"])
    queue.import_messages([Exported(b"a", "delayed", deadline=4e9), Exported(b"b", "delayed", deadline=5e9)])
    assert backend.get(queue.key_prefix + "clock").split(b":")[1:] == [b"4000000000000", b"5000000000100"]
    end_delays(queue)
    queue.sweep()
    assert counts(queue) == (3, 0, 0)
