"""Remove, clear, restore and move."""

import itertools
from collections.abc import Callable

import pytest

from broker.models import NotFound
from broker.queue import ReliableQueue
from tests.broker.helpers import dead_letters, numbered, reserve

HOUR = 3600  # seconds
MAX_BATCH_BYTES = 16 << 20  # a batch ends once it reaches this
MAX_MOVED_BYTES = 2 << 20  # a batch of messages that are moved or restored does


def test_remove_removes_only_this_message_at_this_position(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b", b"a", b"b")
    queue.remove(2, b"a")
    assert queue.all() == [b"a", b"b", b"b"]
    for position, message in [(1, b"a"), (3, b"b"), (10**12, b"a"), (0, b"")]:
        with pytest.raises(NotFound):
            queue.remove(position, message)
    assert queue.all() == [b"a", b"b", b"b"]


def test_move_one_moves_only_this_message_at_this_position(queue: ReliableQueue) -> None:
    to = ReliableQueue(queue.client, queue.name + "x")
    to.push(b"x")
    queue.push(b"a", b"b", b"a", b"b")
    queue.move_one(to.name, 2, b"a")
    assert (queue.all(), to.all()) == ([b"a", b"b", b"b"], [b"x", b"a"])
    for position, message in [(1, b"a"), (3, b"b"), (10**12, b"a"), (0, b"")]:
        with pytest.raises(NotFound):
            queue.move_one(to.name, position, message)
    assert (queue.all(), to.all()) == ([b"a", b"b", b"b"], [b"x", b"a"])


def test_clear_removes_every_message_and_restore_puts_them_back_once(queue: ReliableQueue) -> None:
    queue.push(*numbered(3))
    count, undo = queue.clear()
    assert (count, queue.all()) == (3, [])
    assert undo is not None
    assert queue.client.exists(queue.key_prefix + "cleared:" + undo)
    assert (queue.restore(undo), queue.all()) == (3, numbered(3))
    assert queue.client.ttl(queue.key) == -1
    with pytest.raises(NotFound):
        queue.restore(undo)


def test_clearing_an_empty_queue_leaves_nothing_to_restore(queue: ReliableQueue) -> None:
    assert queue.clear() == (0, None)
    with pytest.raises(NotFound):
        queue.restore("never")


@pytest.mark.parametrize(
    ("removed", "popped", "left"),
    [
        (3, 0, [b"0", b"1", b"x", b"3", b"x", b"new"]),  # nothing else has changed
        (2, 0, [b"0", b"1", b"x", b"3", b"x", b"new"]),
        (4, 1, [b"1", b"x", b"3", b"x", b"new"]),  # the last one
        (0, 0, [b"0", b"1", b"x", b"3", b"x", b"new"]),
        (1, 1, [b"1", b"x", b"3", b"x", b"new"]),  # all those ahead have left
    ],
)
def test_a_removed_message_goes_back_to_where_it_was(
    queue: ReliableQueue, removed: int, popped: int, left: list[bytes]
) -> None:
    queue.push(b"0", b"1", b"x", b"3", b"x")
    undo = queue.remove(removed, queue.all()[removed], undo=True)
    assert undo is not None
    queue.push(b"new")
    for _ in range(popped):
        queue.pop()
    assert queue.client.ttl(queue.key_prefix + "cleared:" + undo) > HOUR - 60
    assert (queue.restore(undo), queue.all()) == (1, left)
    with pytest.raises(NotFound):
        queue.restore(undo)


@pytest.mark.parametrize("removed", [0, 1, 2])
def test_a_removal_that_is_undone_keeps_all_deliveries(queue: ReliableQueue, removed: int) -> None:
    queue.push(*numbered(3))
    reservations = reserve(queue, 3)
    queue.release(*(each.id for each in reservations), reason="why")
    before = queue.details(3, 0, 9)
    undo = queue.remove(removed, numbered(3)[removed], undo=True)
    queue.restore(str(undo))
    assert queue.details(3, 0, 9) == before
    assert [each.deliveries for each in reserve(queue, 3)] == [2, 2, 2]


def test_a_dead_letter_that_is_restored_keeps_its_reason(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    queue.release(*(each.id for each in reserve(queue, 2)), dead=True, reason="why")
    dead = dead_letters(queue)
    before = dead.details(2, 0, 9)
    undo = dead.remove(1, b"b", undo=True)
    dead.restore(str(undo))
    assert dead.details(2, 0, 9) == before


def test_many_removed_messages_go_back_to_the_front_with_their_history(queue: ReliableQueue) -> None:
    queue.push(*[b"%d%s" % (number, b" x" * (number % 2)) for number in range(8)])
    queue.release(*(each.id for each in reserve(queue, 4)), reason="why")
    undo, steps = queue.find_and_remove("X")
    assert (sum(steps), queue.all()) == (4, [b"0", b"2", b"4", b"6"])
    for key in queue._removed_keys(undo):
        assert HOUR - 60 < queue.client.ttl(key) <= HOUR
    queue.push(b"new")
    assert queue.restore(undo) == 4
    found = [(head, history.deliveries, history.reason) for head, _, history in queue.details(9, 0, 9)]
    old = [(b"%d%s" % (number, b" x" * (number % 2)), int(number < 4), "why" * (number < 4)) for number in range(8)]
    assert found == [*old[1::2], *old[::2], (b"new", 0, "")]
    assert not queue.client.exists(*queue._removed_keys(undo))
    with pytest.raises(NotFound):
        queue.restore(undo)


def test_many_dead_letters_that_are_restored_keep_their_reasons(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b", b"b", b"c")
    for each in reserve(queue, 4):
        queue.release(each.id, dead=True, reason=f"why {bytes(each).decode()}")
    dead = dead_letters(queue)
    before = dead.details(9, 0, 9)
    undo, steps = dead.remove_many([(0, b"a"), (1, b"b"), (2, b"b")])
    assert (sum(steps), dead.all()) == (3, [b"c"])
    assert queue.client.hlen(dead.key_prefix + "failure_reasons") == 1
    assert (dead.restore(undo), dead.details(9, 0, 9)) == (3, before)


def test_of_a_long_list_of_messages_those_that_are_still_at_their_positions_are_removed(queue: ReliableQueue) -> None:
    queue.push(*numbered(1000))
    undo, steps = queue.remove_many(
        [(at, message) for at, message in enumerate(numbered(1000)) if at % 3] + [(3, b"4")]
    )
    assert ([*steps], queue.all()) == ([249, 250, 167], numbered(1000)[::3])
    assert queue.restore(undo) == 666
    assert queue.all() == [message for at, message in enumerate(numbered(1000)) if at % 3] + numbered(1000)[::3]


def test_many_messages_are_removed_in_bounded_steps(queue: ReliableQueue) -> None:
    """In order, and what the steps so far have removed can be restored."""
    texts = [b"%d" % number + b"x" * (number % 7 == 0) for number in range(7000)]
    queue.push(*texts[:3500])
    queue.push(*texts[3500:])
    undo, steps = queue.find_and_remove("x")
    sizes = list(itertools.takewhile(lambda _: queue.client.llen(queue._cleared_key(undo)) < 500, steps))
    assert max(sizes) <= 250
    kept = queue.client.llen(queue._cleared_key(undo))
    steps.close()  # type: ignore[attr-defined]
    assert queue.restore(undo) == kept
    undo, steps = queue.find_and_remove("x")
    assert (sum(steps), queue.all()) == (1000, [text for text in texts if b"x" not in text])
    queue.restore(undo)
    found = [text for text in texts if b"x" in text]
    assert queue.all()[:kept] == found[:kept] and sorted(queue.all()) == sorted(texts)


@pytest.mark.parametrize("pushed_since", [1, 2, 5])
def test_restored_messages_are_popped_before_those_pushed_since(queue: ReliableQueue, pushed_since: int) -> None:
    queue.push(*numbered(2))
    _, undo = queue.clear()
    queue.push(*numbered(pushed_since, 2))
    assert undo is not None
    assert (queue.restore(undo), queue.all()) == (2, numbered(2 + pushed_since))
    assert queue.client.ttl(queue.key) == -1


@pytest.mark.parametrize("pushed_since", [0, 3, 2500])
def test_many_cleared_messages_are_restored_in_bounded_steps(queue: ReliableQueue, pushed_since: int) -> None:
    queue.push(*numbered(9000))
    _, undo = queue.clear()
    queue.push(*numbered(pushed_since, 9000))
    batches = queue.restore_in_batches(str(undo))
    first = next(batches)
    assert first == (1000 if pushed_since > 1000 else 9000)
    left = queue.client.llen(queue.key_prefix + "cleared:" + str(undo))
    assert (left, queue.count()) == (9000 - first, first + pushed_since)
    if left:  # the caller died; the rest is restored an hour later at most
        assert queue.client.ttl(queue.key_prefix + "cleared:" + str(undo)) > HOUR - 60
        assert queue.restore(str(undo)) == left
    assert queue.all() == numbered(9000 + pushed_since)
    assert queue.client.ttl(queue.key) == -1


@pytest.mark.parametrize(("cleared", "pushed_since"), [(5, 6), (6, 5), (1, 5)])
def test_large_cleared_messages_are_restored_in_bounded_steps(
    queue: ReliableQueue, cleared: int, pushed_since: int
) -> None:
    big = [b"%d" % number + b"x" * (MAX_MOVED_BYTES // 4) for number in range(cleared + pushed_since)]
    queue.push(*big[:cleared])
    _, undo = queue.clear()
    queue.push(*big[cleared:])
    assert [*queue.restore_in_batches(str(undo))] == ([4, cleared - 4] if cleared > 4 else [cleared])
    assert queue.all() == big


def test_two_clears_are_restored_separately(queue: ReliableQueue) -> None:
    queue.push(b"a")
    _, first = queue.clear()
    queue.push(b"b")
    _, second = queue.clear()
    assert first is not None
    assert second is not None
    assert (queue.restore(second), queue.all()) == (1, [b"b"])
    assert (queue.restore(first), queue.all()) == (1, [b"a", b"b"])


def test_a_cleared_queue_can_be_restored_for_an_hour(queue: ReliableQueue) -> None:
    queue.push(b"a")
    _, undo = queue.clear()
    assert HOUR - 60 < queue.client.ttl(f"{queue.key_prefix}cleared:{undo}") <= HOUR


def test_clear_leaves_reserved_messages_alone(queue: ReliableQueue) -> None:
    queue.push(b"a", b"b")
    [delivery] = reserve(queue)
    assert queue.clear()[0] == 1
    queue.release(delivery.id)
    assert queue.all() == [b"a"]


def test_moved_messages_keep_their_order_behind_those_already_there(queue: ReliableQueue) -> None:
    to = ReliableQueue(queue.client, queue.name + "x")
    to.push(b"x")
    queue.push(*numbered(5))
    assert (queue.move(to.name, 3), queue.move(to.name, 9), queue.move(to.name, 9)) == (3, 2, 0)
    assert (queue.all(), to.all()) == ([], [b"x", *numbered(5)])


@pytest.mark.parametrize(
    ("operation", "max_bytes"), [("pop", MAX_BATCH_BYTES), ("reserve", MAX_BATCH_BYTES), ("move", 1 << 20)]
)
def test_a_batch_ends_once_it_reaches_its_size_limit(
    queue: ReliableQueue, name: str, operation: str, max_bytes: int
) -> None:
    big = b"x" * (max_bytes // 4 + 1)
    queue.push(b"small", *[big] * 5)
    take: Callable[[], int] = {
        "pop": lambda: len(queue.pop_batch(1000).messages),
        "reserve": lambda: len(reserve(queue, 1000)),
        "move": lambda: queue.move(name + "-to", 1000),
    }[operation]
    assert [take() for _ in range(3)] == [5, 1, 0]


def test_one_move_moves_at_most_500_messages(queue: ReliableQueue) -> None:
    to = ReliableQueue(queue.client, queue.name + "x")
    queue.push(*numbered(700))
    assert [queue.move(to.name, 10**12), queue.move(to.name, 10**12)] == [500, 200]
    assert to.all() == numbered(700)
