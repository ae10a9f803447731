"""Why messages died: kept beside the dead letters by digest, and gone when they are."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from broker.models import Details, Search
from broker.queue import ReliableQueue
from tests.broker.helpers import dead_letters, end_leases, numbered, on_real_servers, reserve


@pytest.fixture
def queue(backend: Any, name: str) -> ReliableQueue:
    return ReliableQueue(backend, name, max_deliveries=2)


def known(queue: ReliableQueue) -> list[tuple[bytes, int, str, bool]]:
    """Return each waiting message with its deliveries, why it failed, and whether it died."""
    return [(head, one.deliveries, one.reason, one.died) for head, _, one in queue.details(1000, 0, 100)]


def causes(queue: ReliableQueue) -> int:
    return int(queue.client.hlen(queue.key_prefix + "dead:failure_reasons"))


def bury(queue: ReliableQueue, message: bytes, reason: str) -> None:
    queue.push(message)
    queue.release(reserve(queue)[0].id, dead=True, reason=reason)


def test_a_lease_that_ran_out_is_the_reason(queue: ReliableQueue) -> None:
    queue.push(b"a")
    for _ in range(2):
        reserve(queue)
        end_leases(queue)
        queue.state()
    [(head, size, details)] = dead_letters(queue).details(9, 0, 9)
    assert (head, size, details.deliveries, details.reason, details.died) == (b"a", 1, 2, "lease expired", True)
    assert details.failed and abs(details.failed - time.time()) < 50


def test_a_release_says_why(queue: ReliableQueue) -> None:
    bury(queue, b"a", "ValueError: žluť: no\nnumber!")
    assert known(dead_letters(queue)) == [(b"a", 1, "ValueError: žluť: no\nnumber!", True)]


def test_a_message_that_came_back_knows_why(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b", b"c")
    one, two = reserve(queue, 2)
    queue.release(two.id, reason="second")
    queue.release(one.id, reason="first")
    assert known(queue) == [(b"a", 1, "first", False), (b"b", 1, "second", False), (b"c", 0, "", False)]
    assert queue.details(2, 1, 9)[1][2] == Details()
    queue.push(b"front", front=True)
    assert known(queue)[:2] == [(b"front", 0, "", False), (b"a", 1, "first", False)]


def test_equal_dead_letters_share_the_latest_cause_until_the_last_is_gone(queue: ReliableQueue) -> None:
    for reason in ("one", "two", "three"):
        bury(queue, b"same", reason)
    bury(queue, b"other", "four")
    dead = dead_letters(queue)
    assert known(dead) == [(b"same", 1, "three", True)] * 3 + [(b"other", 1, "four", True)]
    dead.pop(2)
    assert (known(dead)[0], causes(queue)) == ((b"same", 1, "three", True), 2)
    dead.pop()
    assert (known(dead), causes(queue)) == ([(b"other", 1, "four", True)], 1)


@pytest.mark.parametrize("way", ["pop", "pop with a key", "ack", "remove", "move", "find and move", "clear"])
def test_a_cause_goes_with_its_message(queue: ReliableQueue, way: str) -> None:
    bury(queue, b"a", "why")
    dead = dead_letters(queue)
    ways: dict[str, Callable[[], object]] = {
        "pop": lambda: dead.pop(),
        "pop with a key": lambda: dead.pop_batch(2, "key"),
        "ack": lambda: dead.ack(reserve(dead)[0].id),
        "remove": lambda: dead.remove(0, b"a"),
        "move": lambda: dead.move(queue.name, 1),
        "find and move": lambda: dead.find_and_move(queue.name, "a", 1, Search()),
        "clear": lambda: dead.clear(),
    }
    ways[way]()
    assert (dead.all(), causes(queue)) == ([], 0)
    if way in ("move", "find and move"):
        assert known(queue) == [(b"a", 0, "", False)]


def test_a_dead_letter_that_is_looked_at_keeps_its_cause(queue: ReliableQueue) -> None:
    bury(queue, b"a", "why")
    dead = dead_letters(queue)
    dead.release(reserve(dead)[0].id)
    assert known(dead) == [(b"a", 1, "why", True)]


@on_real_servers
def test_causes_of_letters_that_raw_clients_removed_are_bounded(queue: ReliableQueue) -> None:
    dead = dead_letters(queue)
    for start in range(0, 3000, 100):
        queue.push(*numbered(100, start))
        queue.release(*(one.id for one in reserve(queue, 100)), dead=True, reason="why")
        queue.client.delete(dead.key)
    assert causes(queue) < 1500
    assert max(len(value) for value in queue.client.hvals(queue.key_prefix + "dead:failure_reasons")) < 60


def test_a_cause_holds_no_second_copy_of_a_large_text(queue: ReliableQueue) -> None:
    bury(queue, b"x" * 100_000, "why")
    [(field, value)] = queue.client.hgetall(queue.key_prefix + "dead:failure_reasons").items()
    assert (len(field), len(value) < 40) == (20, True)
