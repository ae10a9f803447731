"""The first messages and the waiting clients in a state. Its counts are tested with the operations that change them."""

from broker.models import NextMessage
from broker.queue import ReliableQueue
from tests.broker.helpers import numbered, reserve

LARGE = 700 << 10  # bytes; two reach the limit of a call


def test_a_state_has_the_first_bytes_and_the_size_of_messages(queue: ReliableQueue) -> None:
    queue.push(b"abcdef", b"gh", b"", "é".encode())
    assert queue.state(2, 0, 3).heads == [(b"abc", 6), (b"gh", 2)]
    assert queue.state(9, 1, 1).heads == [(b"g", 2), (b"", 0), (b"\xc3", 2)]
    assert queue.state(5, 4, 9).heads == queue.state(5, 10**12, 9).heads == []


def test_no_call_shows_more_than_two_large_messages(queue: ReliableQueue) -> None:
    """Even where small messages wait before them. A state is read in several calls."""
    large = [b"%d" % number + b"x" * LARGE for number in range(6)]
    queue.push(*numbered(500), *large)
    assert [size for _, size, _ in queue.details(100, 497, 1)] == [3, 3, 3, LARGE + 1, LARGE + 1]
    assert queue.state(9, 498, 1).heads == [(b"4", 3), (b"4", 3), *((b"%d" % number, LARGE + 1) for number in range(6))]
    reserve(queue, 1000)
    assert len(queue.in_flight("reserved", 100, 1, 500)) == 2


def test_waiters_are_summed_over_processes_and_expire(queue: ReliableQueue) -> None:
    queue.report_waiters("one", 2, 30)
    queue.report_waiters("two", 3, 30)
    assert queue.state().counts.waiters == 5
    queue.report_waiters("one", 1, 30)
    assert queue.state().counts.waiters == 4
    queue.report_waiters("two", 0, 30)
    assert queue.state().counts.waiters == 1
    queue.report_waiters("gone", 7, 0)  # this report has expired already
    assert queue.state().counts.waiters == 1


def next_message(queue: ReliableQueue) -> NextMessage:
    """Return what is known of the next message, after checking that it is asked for."""
    assert queue.state().next_message is queue.state(1, 1, 9).next_message is None
    found = queue.state(1).next_message
    assert found
    return found


def test_a_state_says_which_message_is_next(queue: ReliableQueue) -> None:
    assert queue.state(1).next_message is None
    first, second = b"a" * 100_000 + b"1", b"a" * 100_000 + b"2"
    queue.push(first, second)
    before = next_message(queue)
    assert len(before.summary) < 1100
    queue.push(b"b")
    assert next_message(queue) == before
    queue.pop()
    assert next_message(queue).summary != before.summary


def test_a_state_says_since_when_the_next_message_is_back(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b", b"c")
    assert (next_message(queue).returned, next_message(queue).redeliveries) == (None, 0)
    queue.release(*(one.id for one in reserve(queue, 2)))
    back = next_message(queue)
    assert (back.deliveries, back.redeliveries) == (1, 2)
    assert back.returned is not None and 0 <= back.returned < 50
    entry = queue.client.lindex(queue.key_prefix + "redeliveries", -1)
    digest, deliveries, when, rest = entry.split(b":", 3)
    earlier = b":".join((digest, deliveries, b"%d" % (int(when) - 100_000), rest))
    queue.client.lset(queue.key_prefix + "redeliveries", -1, earlier)
    later = next_message(queue)
    assert later.returned is not None and 100 <= later.returned < 150
    queue.push(b"d", front=True)
    assert (next_message(queue).deliveries, next_message(queue).redeliveries) == (0, 3)
