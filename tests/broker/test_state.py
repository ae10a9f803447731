"""The first messages and the waiting clients in a state. Its counts are tested with the operations that change them."""

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
