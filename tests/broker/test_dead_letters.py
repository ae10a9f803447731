"""Why messages died: kept beside the dead letters by digest, and removed with them."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from broker.models import Details
from broker.queue import ReliableQueue
from tests.broker.helpers import bury, dead_letters, end_leases, numbered, reserve


@pytest.fixture
def queue(backend: Any, name: str) -> ReliableQueue:
    return ReliableQueue(backend, name, max_deliveries=2)


def history(queue: ReliableQueue) -> list[tuple[bytes, int, str, bool]]:
    """Return each waiting message with its deliveries, its last failure, and whether it died."""
    return [(head, one.deliveries, one.reason, one.died is not None) for head, _, one in queue.details(1000, 0, 100)]


def reasons(queue: ReliableQueue) -> int:
    """Return the number of failure reasons that are kept."""
    return int(queue.client.hlen(queue.key_prefix + "dead:failure_reasons"))


def test_an_expired_lease_is_a_reason(queue: ReliableQueue) -> None:
    queue.push(b"a")
    for _ in range(2):
        reserve(queue)
        end_leases(queue)
        queue.sweep()
    [(head, size, details)] = dead_letters(queue).details(9, 0, 9)
    assert (head, size, details.deliveries, details.reason) == (b"a", 1, 2, "lease expired")
    assert details.died and abs(details.died - time.time()) < 50


def test_a_release_gives_the_reason(queue: ReliableQueue) -> None:
    bury(queue, b"a", "ValueError: žluť: no\nnumber!")
    assert history(dead_letters(queue)) == [(b"a", 1, "ValueError: žluť: no\nnumber!", True)]


def test_a_message_that_came_back_has_its_last_failure(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b", b"c")
    one, two = reserve(queue, 2)
    queue.release(two.id, reason="second")
    queue.release(one.id, reason="first")
    assert history(queue) == [(b"a", 1, "first", False), (b"b", 1, "second", False), (b"c", 0, "", False)]
    assert queue.details(2, 1, 9)[1][2] == Details()
    queue.push(b"front", front=True)
    assert history(queue)[:2] == [(b"front", 0, "", False), (b"a", 1, "first", False)]


def test_equal_dead_letters_share_the_latest_reason_until_the_last_is_gone(queue: ReliableQueue) -> None:
    for reason in ("one", "two", "three"):
        bury(queue, b"same", reason)
    bury(queue, b"other", "four")
    dead = dead_letters(queue)
    assert history(dead) == [(b"same", 1, "three", True)] * 3 + [(b"other", 1, "four", True)]
    dead.pop(2)
    assert (history(dead)[0], reasons(queue)) == ((b"same", 1, "three", True), 2)
    dead.pop()
    assert (history(dead), reasons(queue)) == ([(b"other", 1, "four", True)], 1)


@pytest.mark.parametrize(
    "way", ["pop", "pop once", "ack", "remove", "move", "move one", "find and move", "find and remove", "clear"]
)
def test_a_reason_goes_with_its_message(queue: ReliableQueue, way: str) -> None:
    bury(queue, b"a", "why")
    dead = dead_letters(queue)
    ways: dict[str, Callable[[], object]] = {
        "pop": lambda: dead.pop(),
        "pop once": lambda: dead.pop_batch(2, "key"),
        "ack": lambda: dead.ack(reserve(dead)[0].id),
        "remove": lambda: dead.remove(0, b"a"),
        "move": lambda: dead.move(queue.name, 1),
        "move one": lambda: dead.move_one(queue.name, 0, b"a"),
        "find and move": lambda: sum(dead.find_and_move(queue.name, "a")),
        "find and remove": lambda: sum(dead.find_and_remove("a")[1]),
        "clear": lambda: dead.clear(),
    }
    ways[way]()
    assert (dead.all(), reasons(queue)) == ([], 0)
    if way in ("move", "move one", "find and move"):
        assert history(queue) == [(b"a", 1, "why", True)]


def test_a_dead_letter_that_was_reserved_and_released_keeps_its_reason(queue: ReliableQueue) -> None:
    bury(queue, b"a", "why")
    dead = dead_letters(queue)
    dead.release(reserve(dead)[0].id)
    assert history(dead) == [(b"a", 2, "why", True)]


def test_a_dead_letter_that_is_moved_back_has_its_tries_again_and_its_history(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    queue.release(*(one.id for one in reserve(queue, 2)), dead=True, reason="why")
    assert dead_letters(queue).move(queue.name, 9) == 2
    assert history(queue) == [(b"a", 1, "why", True), (b"b", 1, "why", True)]
    first, second = reserve(queue, 2)
    assert (first.deliveries, second.deliveries) == (1, 1)
    queue.release(first.id, reason="again")
    queue.release(second.id, delay=100)
    assert history(queue) == [(b"a", 2, "again", True)]
    [delayed] = queue.in_flight("delayed", 9, 9)
    assert (delayed.details.deliveries, delayed.details.reason) == (1, "why")
    [first] = reserve(queue)
    [reserved] = queue.in_flight("reserved", 9, 9)
    assert (first.deliveries, reserved.details.deliveries, reserved.details.died is None) == (2, 2, False)
    assert queue.release(first.id, reason="at last") == 1
    assert history(dead_letters(queue)) == [(b"a", 3, "at last", True)]
    queue.ack(delayed.id)
    assert not queue.client.exists(queue.key_prefix + "failure_reasons")


@pytest.mark.parametrize("way", ["ack", "pop", "remove", "clear"])
def test_the_history_of_a_dead_letter_that_was_moved_back_ends_when_it_leaves(queue: ReliableQueue, way: str) -> None:
    queue.push(b"before")
    queue.ack(reserve(queue)[0].id)  # the next ack has nothing to trim
    bury(queue, b"a", "why")
    dead_letters(queue).move(queue.name, 1)
    assert queue.client.ttl(queue.key_prefix + "failure_reasons") > 6 * 86_400
    ways: dict[str, Callable[[], object]] = {
        "ack": lambda: queue.ack(reserve(queue)[0].id),
        "pop": lambda: queue.pop(),
        "remove": lambda: queue.remove(0, b"a"),
        "clear": lambda: queue.clear(),
    }
    ways[way]()
    queue.push(b"a")
    assert history(queue) == [(b"a", 0, "", False)]


def test_reasons_of_dead_letters_do_not_expire(queue: ReliableQueue) -> None:
    bury(queue, b"a", "why")
    dead_letters(queue).move(queue.name, 1)
    queue.move(dead_letters(queue).name, 1)
    assert queue.client.ttl(queue.key_prefix + "dead:failure_reasons") == -1
    assert history(dead_letters(queue)) == [(b"a", 1, "why", True)]


def test_reasons_of_dead_letters_that_raw_clients_removed_are_bounded(queue: ReliableQueue) -> None:
    dead = dead_letters(queue)
    for start in range(0, 1400, 200):
        queue.push(*numbered(200, start))
        queue.release(*(one.id for one in reserve(queue, 200)), dead=True, reason="why")
        queue.client.delete(dead.key)
    assert reasons(queue) < 1400


def test_a_reason_holds_no_copy_of_the_message(queue: ReliableQueue) -> None:
    bury(queue, b"x" * 100_000, "why")
    [(field, value)] = queue.client.hgetall(queue.key_prefix + "dead:failure_reasons").items()
    assert (len(field), len(value) < 40) == (20, True)
