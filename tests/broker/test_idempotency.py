"""Pushing and popping with an Idempotency-Key: the work is done once, and the answer stays the same."""

import pytest

from broker.models import Batch, Conflict, Pushed
from broker.queue import ReliableQueue
from tests.broker.helpers import numbered

DAY, HOUR = 24 * 3600, 3600  # seconds


@pytest.mark.parametrize("front", [False, True])
def test_a_push_is_done_once_and_its_answer_stays_the_same(queue: ReliableQueue, front: bool) -> None:
    queue.push(b"x")
    assert queue.push_once("key", [b"a", b"b"], front) == Pushed(3)
    assert queue.push_once("key", [b"a", b"b"], front) == Pushed(3, is_repeated=True)
    assert queue.all() == ([b"a", b"b", b"x"] if front else [b"x", b"a", b"b"])
    assert queue.push_once("other", [b"a", b"b"], front).count == 5


def test_a_push_of_no_messages_changes_nothing(queue: ReliableQueue) -> None:
    queue.push(b"x")
    assert [queue.push_once("key", []).count, queue.push_later(9, []).count] == [1, 1]


def test_a_push_can_have_more_messages_than_lua_can_unpack(queue: ReliableQueue) -> None:
    assert queue.push_once("key", numbered(10_001)).count == 10_001
    assert queue.all() == numbered(10_001)
    queue.push_once("next", numbered(2500), front=True)
    assert queue.all(0, 2500) == numbered(2500)


@pytest.mark.parametrize(
    ("messages", "front"),
    [([b"b"], False), ([b"a"], True), ([b"a", b"a"], False), ([b"", b"a"], False), ([b"a1:b"], False)],
)
def test_another_push_with_the_same_key_is_a_conflict(queue: ReliableQueue, messages: list[bytes], front: bool) -> None:
    queue.push_once("key", [b"a"])
    with pytest.raises(Conflict):
        queue.push_once("key", messages, front)
    assert queue.all() == [b"a"]


def test_a_pop_is_done_once_and_its_answer_stays_the_same(queue: ReliableQueue) -> None:
    queue.push(*numbered(5))
    assert queue.pop_batch(2, "key") == Batch([b"0", b"1"])
    assert queue.pop_batch(2, "key") == Batch([b"0", b"1"], is_repeated=True)
    assert queue.all() == numbered(3, 2)
    with pytest.raises(Conflict):
        queue.pop_batch(3, "key")
    with pytest.raises(Conflict):
        queue.push_once("key", [b"a"])
    assert queue.all() == numbered(3, 2)


def test_the_answer_of_an_empty_pop_is_not_saved(queue: ReliableQueue) -> None:
    assert queue.pop_batch(1, "key").messages == []
    queue.push(b"a")
    assert [queue.pop_batch(1, "key").messages for _ in range(2)] == [[b"a"]] * 2


def answer_keys(queue: ReliableQueue) -> list[bytes]:
    """Return the keys that hold answers."""
    return [*queue.client.scan_iter(match=f"{queue.key_prefix}answers:*", count=100_000)]


def test_an_answer_is_saved_for_a_day(queue: ReliableQueue) -> None:
    queue.push_once("push", [b"a"])
    queue.pop_batch(1, "pop")
    assert all(DAY < queue.client.ttl(key) <= DAY + 6 * HOUR for key in answer_keys(queue))


def test_many_answers_are_in_few_keys(queue: ReliableQueue) -> None:
    for number in range(300):
        queue.push_once(f"push{number}", [b"a"])
        queue.pop_batch(1, f"pop{number}")
    assert len(answer_keys(queue)) <= 2  # two if six hours have just ended


@pytest.mark.parametrize(("hours", "is_saved"), [(-6, True), (0, True), (18, True), (24, True), (30, False)])
def test_answers_are_found_for_a_day_and_then_replaced(queue: ReliableQueue, hours: int, is_saved: bool) -> None:
    """Time moves by renaming the key: all answers of it get older."""
    queue.push_once("old", [b"a"])
    [key] = answer_keys(queue)
    number = int(key.rpartition(b":")[2])
    queue.client.rename(key, f"{queue.key_prefix}answers:{(number + hours // 6) % 7}")
    queue.push_once("new", [b"b"])
    assert queue.push_once("old", [b"a"]).is_repeated == is_saved
    assert queue.push_once("new", [b"b"]).is_repeated
