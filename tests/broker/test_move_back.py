"""A move that is undone: what still waits where it was moved to goes back to where it came from."""

from typing import Any

import pytest
import redis

from broker.connections.connection import connect
from broker.models import Details, NotFound
from broker.queue import ReliableQueue
from tests.broker.helpers import bury, dead_letters, end_leases, numbered, reserve
from tests.servers import Proxy, Store

HOUR = 3600  # seconds


@pytest.fixture
def other(queue: ReliableQueue) -> ReliableQueue:
    return ReliableQueue(queue.client, queue.name + "x")


def move(queue: ReliableQueue, to: ReliableQueue, max: int, undo: str | None = None) -> str:
    """Move messages, and return the undo."""
    undo = undo or queue.new_undo(to.name)
    while max > 0 and (moved := queue.move(to.name, max, undo)):
        max -= moved
    return undo


def test_what_was_moved_goes_back_to_the_front_in_its_order(queue: ReliableQueue, other: ReliableQueue) -> None:
    queue.push(*numbered(5))
    other.push(b"x")
    undo = move(queue, other, 3)
    queue.push(b"new")
    other.push(b"y")
    assert queue.client.ttl(f"{queue.key_prefix}moved:{undo.partition(':')[0]}") > HOUR - 60
    assert queue.restore(undo) == 3
    assert (queue.all(), other.all()) == ([*numbered(5), b"new"], [b"x", b"y"])
    with pytest.raises(NotFound):
        queue.restore(undo)


def test_what_was_popped_or_acked_or_is_reserved_does_not_go_back(queue: ReliableQueue, other: ReliableQueue) -> None:
    queue.push(*numbered(6))
    undo = move(queue, other, 6)
    assert other.pop() == [b"0"]
    acked, reserved, released = reserve(other, 3)
    other.ack(acked.id)
    other.release(released.id)
    assert queue.restore(undo) == 3
    assert (queue.all(), other.all()) == ([b"3", b"4", b"5"], [])
    end_leases(other, reserved.id)
    assert [(bytes(one), one.deliveries) for one in reserve(other, 9)] == [(b"2", 2)]
    assert [one.deliveries for one in reserve(queue, 9)] == [1, 1, 1]


def test_a_move_of_which_nothing_is_left_gives_nothing_back(queue: ReliableQueue, other: ReliableQueue) -> None:
    queue.push(b"a")
    undo = move(queue, other, 1)
    other.pop()
    other.push(b"b")
    assert (queue.restore(undo), queue.all(), other.all()) == (0, [], [b"b"])
    with pytest.raises(NotFound):
        queue.restore(undo)


def test_dead_letters_go_back_with_their_reasons(queue: ReliableQueue) -> None:
    for message in (b"a", b"b"):
        bury(queue, message, "why")
    dead = dead_letters(queue)
    before = dead.details(9, 0, 9)
    undo = move(dead, queue, 2)
    assert dead.restore(undo) == 2
    assert dead.details(9, 0, 9) == before
    assert not queue.client.exists(queue.key_prefix + "failure_reasons")


def test_a_new_message_like_a_dead_letter_that_succeeded_stays(queue: ReliableQueue) -> None:
    bury(queue, b"a", "why")
    dead = dead_letters(queue)
    undo = move(dead, queue, 1)
    queue.ack(reserve(queue)[0].id)
    queue.push(b"a")
    assert (dead.restore(undo), queue.all(), dead.all()) == (0, [b"a"], [])


def test_a_message_goes_back_even_if_an_equal_dead_letter_was_there(queue: ReliableQueue) -> None:
    bury(queue, b"a", "why")
    dead, undo = dead_letters(queue), queue.new_undo(queue.name + ".dead")
    queue.push(b"a")
    queue.move(dead.name, 1, undo)
    assert (queue.restore(undo), queue.details(9, 0, 9)) == (1, [(b"a", 1, Details())])
    assert [details.reason for _, _, details in dead.details(9, 0, 9)] == ["why"]


def test_as_many_equal_dead_letters_go_back_as_have_not_succeeded(queue: ReliableQueue) -> None:
    bury(queue, b"a", "why")
    bury(queue, b"a", "why")
    dead = dead_letters(queue)
    undo = move(dead, queue, 2)
    queue.pop()
    queue.push(b"a")
    assert (dead.restore(undo), queue.all(), dead.all()) == (1, [b"a"], [b"a"])
    assert [details.reason for _, _, details in dead.details(9, 0, 9)] == ["why"]


def test_no_more_equal_messages_go_back_than_were_moved(queue: ReliableQueue, other: ReliableQueue) -> None:
    queue.push(*[b"same"] * 4)
    other.push(b"same", *numbered(900), b"same")
    undo = move(queue, other, 2)
    assert queue.move(other.name, 1, undo) == 1
    assert (queue.restore(undo), queue.all()) == (3, [b"same"] * 4)
    assert other.all() == [b"same", *numbered(900), b"same"]


def test_the_deliveries_of_a_message_that_went_back_are_forgotten(queue: ReliableQueue, other: ReliableQueue) -> None:
    queue.push(b"a")
    other.push(b"b")
    undo = move(queue, other, 1)
    other.release(*(one.id for one in reserve(other, 2)))
    assert queue.restore(undo) == 1
    other.push(b"a")
    assert [(bytes(one), one.deliveries) for one in reserve(other, 2)] == [(b"b", 2), (b"a", 1)]


@pytest.mark.parametrize("is_dead", [False, True])
def test_a_large_message_goes_back_and_one_like_it_stays(
    queue: ReliableQueue, other: ReliableQueue, is_dead: bool
) -> None:
    large = bytearray(b"x" * 300_000)
    if is_dead:
        bury(queue, bytes(large), "why")
        queue, other = dead_letters(queue), queue
    else:
        queue.push(bytes(large))
    undo = move(queue, other, 1)
    like_it = large[:10_000] + b"y" + large[10_001:]  # between two samples
    other.push(bytes(like_it))
    assert queue.restore(undo) == 1
    assert (queue.all() == [bytes(large)], other.all() == [bytes(like_it)]) == (True, True)
    undo = move(queue, other, 1)
    other.pop(2)
    other.push(bytes(like_it))
    assert (queue.restore(undo), queue.all(), other.count()) == (0, [], 1)


def test_messages_that_were_found_go_back_to_the_front(queue: ReliableQueue, other: ReliableQueue) -> None:
    queue.push(b"a", b"b1", b"c", b"b2")
    undo = queue.new_undo(other.name)
    assert sum(queue.find_and_move(other.name, "b", undo=undo)) == 2
    assert (queue.restore(undo), queue.all(), other.all()) == (2, [b"b1", b"b2", b"a", b"c"], [])


@pytest.mark.parametrize(
    ("position", "popped", "left"),
    [(2, 0, b"xaxba"), (2, 1, b"axba"), (0, 0, b"xaxba"), (3, 3, b"ba"), (4, 0, b"xaxba")],
)
def test_one_message_goes_back_to_its_place(
    queue: ReliableQueue, other: ReliableQueue, position: int, popped: int, left: bytes
) -> None:
    queue.push(*(b"%c" % letter for letter in b"xaxba"))
    other.push(*numbered(900))
    undo = queue.new_undo(other.name)
    queue.move_one(other.name, position, queue.all()[position], undo)
    queue.pop(popped)
    other.push(b"y")
    assert (list(queue.restore_in_batches(undo)), b"".join(queue.all())) == ([1], left)
    assert other.all() == [*numbered(900), b"y"]
    assert not queue.client.exists(f"{queue.key_prefix}moved:{undo.partition(':')[0]}")


@pytest.mark.parametrize("redelivered", [1, 2, 3])
def test_one_message_that_goes_back_keeps_the_deliveries_of_the_others(
    queue: ReliableQueue, other: ReliableQueue, redelivered: int
) -> None:
    queue.push(*numbered(5))
    undo = queue.new_undo(other.name)
    queue.move_one(other.name, 2, b"2", undo)
    queue.release(*(one.id for one in reserve(queue, redelivered)))
    before = {message: details.deliveries for message, _, details in queue.details(9, 0, 9)}
    assert queue.restore(undo) == 1
    after = {message: details.deliveries for message, _, details in queue.details(9, 0, 9)}
    assert after == before | {b"2": 0}
    entries = queue.client.llen(queue.key_prefix + "redeliveries")
    assert entries == (redelivered if redelivered < 3 else 4), "one for each message that came back, or is before it"
    assert queue.all() == (numbered(5) if redelivered < 3 else [b"2", b"0", b"1", b"3", b"4"])


def test_the_deliveries_of_the_others_are_kept(queue: ReliableQueue, other: ReliableQueue) -> None:
    other.push(*numbered(3))
    other.release(*(one.id for one in reserve(other, 3)))
    queue.push(b"a", b"b", b"c")
    undo = move(queue, other, 1)
    queue.release(*(one.id for one in reserve(queue, 2)))
    assert queue.restore(undo) == 1
    assert [(bytes(one), one.deliveries) for one in reserve(other, 9)] == [(one, 2) for one in numbered(3)]
    assert [(bytes(one), one.deliveries) for one in reserve(queue, 9)] == [(b"a", 1), (b"b", 2), (b"c", 2)]


def test_many_go_back_in_batches_and_the_rest_after_an_interruption(queue: ReliableQueue, other: ReliableQueue) -> None:
    queue.push(*numbered(2500))
    other.push(*numbered(10, 5000))
    undo = move(queue, other, 2500)
    batches = queue.restore_in_batches(undo)
    first = next(batches)
    assert 0 < first < 1000
    other.push(*numbered(10, 6000))
    assert (queue.all(), other.count()) == (numbered(first, 2500 - first), 2500 - first + 20)
    assert queue.restore(undo) == 2500 - first  # the caller of the first died
    assert queue.all() == numbered(2500)
    assert other.all() == [*numbered(10, 5000), *numbered(10, 6000)]


def test_a_move_and_its_undo_lose_nothing_when_their_answers_are_lost(valkey: Store, name: str) -> None:
    proxy = Proxy(valkey.port)
    queue, other = (ReliableQueue(connect(proxy.url), each) for each in (name, name + "x"))
    queue.push(*numbered(2500))
    undo = queue.new_undo(other.name)
    queue.move(other.name, 1000, undo)
    for work in (lambda: move(queue, other, 1500, undo), lambda: queue.restore(undo)):
        proxy.cut("EVALSHA")
        with pytest.raises(redis.ConnectionError):
            work()
        assert sorted(queue.all() + other.all()) == sorted(numbered(2500))
    assert queue.restore(undo) > 0
    assert (queue.all(), other.all()) == (numbered(2500), [])
    proxy.end()


def test_an_undo_of_no_move_is_not_found(queue: ReliableQueue) -> None:
    queue.push(b"a")
    for undo in ("abc:other", ":other", queue.new_undo(queue.name)):
        with pytest.raises(NotFound):
            queue.restore(undo)
    for undo in ("abc:", ":", "abc:not a name"):
        with pytest.raises(NotFound):
            ReliableQueue(None, queue.name).restore(undo)  # without a command
    assert queue.all() == [b"a"]


@pytest.mark.parametrize("damaged", ["list", "failure_reasons", "redeliveries"])
@pytest.mark.parametrize("side", ["from", "to"])
def test_a_move_back_that_fails_has_changed_nothing(
    queue: ReliableQueue, other: ReliableQueue, damaged: str, side: str
) -> None:
    queue.push(b"a", b"b")
    undo = move(queue, other, 2)
    broken = queue if side == "from" else other
    key = broken.key if damaged == "list" else broken.key_prefix + damaged
    saved: Any = queue.client.dump(key)
    queue.client.set(key, "text")
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        queue.restore(undo)
    queue.client.delete(key)
    if saved:
        queue.client.restore(key, 0, saved)
    assert (queue.restore(undo), queue.all(), other.all()) == (2, [b"a", b"b"], [])
